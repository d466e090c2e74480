"""The precision in which the mathematics runs."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> np.dtype:
    """float64 for float64, float32 for every narrower dtype.

    `jnp.promote_types` would do, but refuses under strict dtype promotion.
    """
    wide = jnp.dtype(dtype) == jnp.dtype(jnp.float64)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)
