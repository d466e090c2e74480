"""Random erasing of a rectangle of each image, on the device.

Zhong, Zheng, Kang, Li and Yang, "Random erasing data augmentation", 2020 (arXiv
1708.04896), algorithm 1, with the mean colour as the filling.
"""

import math

import jax
import jax.numpy as jnp

AREA_RANGE = (0.02, 1 / 3)
RATIO_RANGE = (0.3, 1 / 0.3)
ATTEMPTS = 10


def random_erasing(
    key: jax.Array, images: jax.Array, *, probability: float
) -> jax.Array:
    """Images of which some have a rectangle set to 0.

    Its area is uniform in [0.02, 1/3] of the image's, its ratio of height to width
    log-uniform in [0.3, 1/0.3], its place uniform; of ten draws the first that fits is
    taken, and nothing is erased where none does.

    Args:
        key: randomness; image i of the batch always gets the same draws.
        images: [B, H, W, C], normalised: 0 is the mean colour.
        probability: of an image to have one, in [0, 1].
    """
    batch, height, width, _ = images.shape
    chosen_key, shape_key, place_key = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(chosen_key, probability, (batch,))
    draws = jax.random.uniform(shape_key, (batch, ATTEMPTS, 2), jnp.float32)
    low, high = AREA_RANGE
    area = height * width * (low + (high - low) * draws[..., 0])
    low, high = map(math.log, RATIO_RANGE)
    ratio = jnp.exp(low + (high - low) * draws[..., 1])
    # [B, attempts, 2]: height and width.
    sides = jnp.round(jnp.sqrt(area[..., None] * jnp.stack([ratio, 1 / ratio], -1)))
    whole = jnp.array([height, width], jnp.float32)
    fits = jnp.all((sides >= 1) & (sides < whole[None, None]), axis=-1)
    first = jnp.argmax(fits, axis=1)
    side = jnp.take_along_axis(sides, first[:, None, None], axis=1)[:, 0]
    chosen &= jnp.any(fits, axis=1)
    place = jax.random.uniform(place_key, (batch, 2), jnp.float32)
    start = jnp.floor(place * (whole[None] - side + 1))
    erased = chosen[:, None, None] & inside(start, start + side, (height, width))
    return jnp.where(erased[..., None], jnp.zeros((), images.dtype), images)


def inside(start: jax.Array, stop: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Where rectangles lie: bool [B, H, W].

    Args:
        start: float32 [B, 2], the first row and column of each.
        stop: float32 [B, 2], the row and column behind the last.
        shape: H and W.
    """

    def within(axis: int) -> jax.Array:
        index = jnp.arange(shape[axis], dtype=jnp.float32)[None]
        return (index >= start[:, axis, None]) & (index < stop[:, axis, None])

    return within(0)[:, :, None] & within(1)[:, None, :]
