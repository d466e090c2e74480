"""Squared Euclidean distances between the rows of a matrix."""

import jax
import jax.numpy as jnp

from multigrain_jax.ops.dtypes import at_least_float32


def pairwise_squared_distances(x: jax.Array) -> jax.Array:
    """|x_i - x_j|² for all pairs of rows, [B, D] -> [B, B], in at least float32.

    By the Gram matrix, at the highest matmul precision; clamped at 0, below which
    rounding can carry identical rows.
    """
    x = x.astype(at_least_float32(x.dtype))
    gram = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.diagonal(gram)
    return jnp.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
