"""A group that holds too much of a collection is warned of."""

import numpy as np
import pytest

from multigrain_jax.tasks.large_groups import warn_of_large_group


@pytest.mark.parametrize(
    ("sizes", "num_images", "warns"),
    [((12, 30), 118, True), ((9,), 12, False), ((11,), 111, False), ((), 5, False)],
)
def test_a_large_share_is_warned_of(sizes, num_images, warns, capsys):
    warn_of_large_group([np.arange(n) for n in sizes], num_images, "do so")
    said = capsys.readouterr().out
    assert bool(said) == warns
    if warns:
        assert said.startswith("WARNING: the largest group holds 30 of 118 photos, ")
        assert said.endswith(": do so\n")
