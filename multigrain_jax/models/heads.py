"""What is between the pooled features and the descriptor."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class WhiteningValue(nnx.Variable):
    """Mean or projection of a whitening: fitted to data, not trained."""


class Whitening(nnx.Module):
    """(x - mean) @ projection."""

    def __init__(self, dim: int, *, num_components: int, dtype: DTypeLike):
        """Creates mean 0 [dim] and projection 1 [dim, num_components]."""
        self.mean = WhiteningValue(jnp.zeros(dim, dtype))
        self.projection = WhiteningValue(jnp.eye(dim, num_components, dtype=dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, dim] -> [B, num_components]."""
        centred = x - self.mean[...][None]
        return jnp.matmul(
            centred, self.projection[...], precision=jax.lax.Precision.HIGHEST
        )
