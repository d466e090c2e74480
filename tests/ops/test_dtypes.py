"""The precision in which the mathematics runs."""

import jax.numpy as jnp
import pytest

from multigrain_jax.ops.dtypes import at_least_float32


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.bfloat16, "float32"),
        (jnp.float16, "float32"),
        (jnp.float32, "float32"),
        ("float64", "float64"),
    ],
)
def test_nothing_is_narrower_than_float32(dtype, wide):
    assert at_least_float32(dtype) == jnp.dtype(wide)
