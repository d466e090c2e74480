"""Colour augmentation and normalisation of whole batches, on the device.

The colour operations are Pillow's `ImageEnhance`, to the bit: on whole values 0..255
in float32, floor(clip(base + factor * (x - base), 0, 255)).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Lighting noise along the principal components of ImageNet's colours (AlexNet).
LIGHTING_STD = 0.1
LIGHTING_EIGENVALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


class Augmentation(NamedTuple):
    """What happens to a crop between host and network.

    Attributes:
        jitter: colour factors are uniform in [1 - jitter, 1 + jitter]; None: no colour
            augmentation at all.
        flip_on_device: False where the flip must come before the host's operations.
    """

    jitter: float | None
    flip_on_device: bool = True


AUGMENTATIONS = {
    "torch": Augmentation(jitter=None),
    "full": Augmentation(jitter=0.3),
    "senet": Augmentation(jitter=0.2),
    "AA": Augmentation(jitter=None, flip_on_device=False),
    "copies": Augmentation(jitter=None, flip_on_device=False),
    "trivial": Augmentation(jitter=None, flip_on_device=False),
}


def brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Blend with black. Images [B, H, W, 3] of whole values 0..255, factors [B]."""
    return _blend(images, jnp.zeros((), images.dtype), factors)


def contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Blend with the image's rounded mean grey. Arguments as of `brightness`."""
    return _blend(images, _mean_grey(_grey(images)), factors)


def saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Blend with each pixel's grey. Arguments as of `brightness`."""
    return _blend(images, _grey(images)[..., None], factors)


def jitter_colors(images: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
    """Brightness, contrast and saturation, in an order of each image's own.

    Args:
        images: float32 [B, H, W, 3] of whole values 0..255.
        factors: float32 [B, 3], of the three operations.
        order: int32 [B, 3], a permutation of 0, 1, 2: the operation of each round.
    """
    for turn in range(3):
        operation = order[:, turn]
        factor = jnp.take_along_axis(factors, operation[:, None], axis=1)[:, 0]
        grey = _grey(images)[..., None]
        operation = operation[:, None, None, None]
        base = jnp.where(operation == 1, _mean_grey(grey[..., 0]), grey)
        base = jnp.where(operation == 0, jnp.zeros((), images.dtype), base)
        images = _blend(images, base, factor)
    return images


def lighting(images: jax.Array, alphas: jax.Array) -> jax.Array:
    """(x + E (α ∘ λ)) / 1.1: the division is part of the original's operation.

    Args:
        images: [B, H, W, 3] in [0, 1].
        alphas: [B, 3], draws from N(0, 0.1).
    """
    vectors = jnp.asarray(LIGHTING_EIGENVECTORS, images.dtype)
    values = jnp.asarray(LIGHTING_EIGENVALUES, images.dtype)
    shift = jnp.sum(vectors[None] * (alphas * values[None])[:, None, :], axis=-1)
    return (images + shift[:, None, None, :]) / (1.0 + LIGHTING_STD)


def normalize(
    images: jax.Array,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> jax.Array:
    """(x - mean) / std per channel; images [..., 3] in [0, 1]."""
    leading = range(images.ndim - 1)
    center = jnp.expand_dims(jnp.asarray(mean, images.dtype), leading)
    return (images - center) / jnp.expand_dims(jnp.asarray(std, images.dtype), leading)


def normalize_pixels(
    images: jax.Array,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> jax.Array:
    """(x / 255 - mean) / std per channel: pixels as the network takes them.

    Args:
        images: [..., 3] of whole values 0..255, uint8 or float32.
        mean: the backbone's input mean, of values in [0, 1].
        std: the backbone's input standard deviation.

    Returns:
        float32, of the same shape.
    """
    return normalize(images.astype(jnp.float32) / 255.0, mean, std)


def normalize_pixels_on_host(
    images: np.ndarray,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> np.ndarray:
    """`normalize_pixels` in NumPy, for photos that are prepared one by one.

    No device is asked for that, and whoever prepares them in processes of their own
    starts none there. A compiled program may differ in the last bit: it multiplies by
    1 / 255.
    """
    scaled = images.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def horizontal_flip(images: jax.Array, flips: jax.Array) -> jax.Array:
    """Mirror the images [B, H, W, C] where `flips`, bool [B], is True."""
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1, :], images)


def augment(
    key: jax.Array,
    images: jax.Array,
    *,
    augmentation: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> jax.Array:
    """Crops as they come from the host become the network's input.

    Args:
        key: randomness; image i of the batch always gets the same draws.
        images: uint8 [B, S, S, 3].
        augmentation: a key of `AUGMENTATIONS`.
        mean: the backbone's input mean, of values in [0, 1].
        std: the backbone's input standard deviation.

    Returns:
        float32 [B, S, S, 3].

    Raises:
        ValueError: an unknown augmentation.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation: found {augmentation!r}, expected one of "
            f"{', '.join(AUGMENTATIONS)}"
        )
    row = AUGMENTATIONS[augmentation]
    batch = images.shape[0]
    flip_key, factor_key, order_key, light_key = jax.random.split(key, 4)
    if row.flip_on_device:
        images = horizontal_flip(images, jax.random.bernoulli(flip_key, 0.5, (batch,)))
    if row.jitter is None:
        return normalize_pixels(images, mean, std)
    values = images.astype(jnp.float32)
    factors = jax.random.uniform(
        factor_key,
        (batch, 3),
        jnp.float32,
        minval=1 - row.jitter,
        maxval=1 + row.jitter,
    )
    order = jnp.argsort(jax.random.uniform(order_key, (batch, 3)), axis=1)
    values = jitter_colors(values, factors, order)
    alphas = LIGHTING_STD * jax.random.normal(light_key, (batch, 3), jnp.float32)
    lit = lighting(values / 255.0, alphas)
    return normalize(jnp.clip(lit, 0.0, 1.0), mean, std)


def _grey(images: jax.Array) -> jax.Array:
    """Pillow's luma of whole values, [B, H, W, 3] -> [B, H, W], whole values."""
    red, green, blue = (images[..., c].astype(jnp.int32) for c in range(3))
    grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey.astype(images.dtype)


def _mean_grey(grey: jax.Array) -> jax.Array:
    """int(mean + 0.5) of each image, [B, H, W] -> [B, 1, 1, 1]."""
    count = math.prod(grey.shape[1:])
    # int32 holds the total of an image of up to 8 million pixels.
    total = jnp.sum(grey.astype(jnp.int32), axis=(1, 2), dtype=jnp.int32)
    # floor(total / count + 1/2) in whole numbers.
    mean = (total + count // 2) // count
    return mean.astype(grey.dtype)[:, None, None, None]


def _blend(images: jax.Array, base: jax.Array, factors: jax.Array) -> jax.Array:
    scaled = factors[:, None, None, None] * (images - base)
    # A fused multiply-add would round once where Pillow rounds twice. This bound, never
    # reached, stands between the two operations and keeps the compiler from fusing.
    scaled = jnp.minimum(scaled, 1e6)
    return jnp.floor(jnp.clip(base + scaled, 0, 255))
