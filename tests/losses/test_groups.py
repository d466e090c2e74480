"""Groups inside which instances are compared."""

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.groups import in_groups


@pytest.mark.parametrize(("group_size", "groups"), [(4, 3), (12, 1), (64, 1)])
def test_consecutive_samples_are_a_group_and_a_smaller_batch_is_one(group_size, groups):
    x, ids = jnp.arange(24.0).reshape(12, 2), jnp.arange(12, dtype=jnp.int32)
    vectors, names = in_groups(x, ids, group_size=group_size)
    assert vectors.shape == (groups, 12 // groups, 2)
    np.testing.assert_array_equal(names.reshape(-1), ids)
    np.testing.assert_array_equal(vectors.reshape(12, 2), x)


def test_a_size_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="found 5, which does not divide the batch"):
        in_groups(jnp.zeros((12, 2)), jnp.zeros(12, jnp.int32), group_size=5)
