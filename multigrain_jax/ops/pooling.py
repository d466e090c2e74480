"""Generalised-mean pooling and the normalisation of embeddings."""

import math

import jax
import jax.numpy as jnp

from multigrain_jax.ops.dtypes import at_least_float32

GEM_EPSILON = 1e-6
NORM_EPSILON = 1e-6
SMALLEST_NORM = 1e-12  # of torch.nn.functional.normalize


def gem(
    features: jax.Array,
    exponent: float | jax.Array,
    *,
    sizes: jax.Array | None = None,
) -> jax.Array:
    """Generalised mean per channel: (mean over positions of max(x, 1e-6)^p)^(1/p).

    Radenović et al. 2018, equation 1. A Python number is a constant p, of which 1 is
    the plain mean and infinity the maximum, both without the clamp. An array is a
    learned p: always the clamped form, with finite gradients.

    Args:
        features: [B, H, W, C].
        exponent: p > 0.
        sizes: int32 [B, 2], valid height and width of each map; None: all of it.

    Returns:
        [B, C], in at least float32.
    """
    x = features.astype(at_least_float32(features.dtype))
    _, height, width, _ = x.shape
    if sizes is None:
        inside, count = None, jnp.asarray(height * width, x.dtype)
    else:
        rows = jnp.arange(height, dtype=jnp.int32)[None] < sizes[:, :1]
        columns = jnp.arange(width, dtype=jnp.int32)[None] < sizes[:, 1:]
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]
        count = jnp.prod(sizes, axis=1).astype(x.dtype)[:, None]
    constant = not isinstance(exponent, jax.Array)
    if constant and exponent == 1:
        total = jnp.sum(x if inside is None else jnp.where(inside, x, 0), axis=(1, 2))
        return total / count
    if constant and math.isinf(exponent):
        return jnp.max(
            x if inside is None else jnp.where(inside, x, -jnp.inf), axis=(1, 2)
        )
    exponent = jnp.asarray(exponent, x.dtype)
    # In log space large powers neither overflow nor lose the gradient of p.
    powers = exponent * jnp.log(jnp.maximum(x, GEM_EPSILON))
    if inside is not None:
        powers = jnp.where(inside, powers, -jnp.inf)
    log_sum = jax.nn.logsumexp(powers, axis=(1, 2))
    return jnp.exp((log_sum - jnp.log(count)) / exponent)


def l2_normalize(x: jax.Array) -> jax.Array:
    """X / (‖x‖ + 1e-6) along the last axis, in at least float32.

    The gradient of a zero row is finite.

    Args:
        x: [..., D].
    """
    x = x.astype(at_least_float32(x.dtype))
    return x / (_norm(x) + NORM_EPSILON)


def to_unit_length(x: jax.Array) -> jax.Array:
    """X / max(‖x‖, 1e-12) along the last axis, in at least float32.

    So PyTorch normalises: of unit length exactly. The gradient of a zero row is finite.

    Args:
        x: [..., D].
    """
    x = x.astype(at_least_float32(x.dtype))
    return x / jnp.maximum(_norm(x), SMALLEST_NORM)


def _norm(x: jax.Array) -> jax.Array:
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    # The root's gradient at zero is infinite, and infinity times zero is NaN.
    is_zero = squared == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))


def append_one(embedding: jax.Array) -> jax.Array:
    """[embedding, 1], [B, D] -> [B, D + 1].

    The constant channel lets the classifier's bias be folded into a projection.
    """
    ones = jnp.ones((len(embedding), 1), embedding.dtype)
    return jnp.concatenate([embedding, ones], axis=-1)


def whitening_input(embedding: jax.Array) -> jax.Array:
    """What a whitening takes: [embedding, 1] of unit length, [B, D] -> [B, D + 1]."""
    return l2_normalize(append_one(embedding))
