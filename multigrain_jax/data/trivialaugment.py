"""TrivialAugment with Pillow's operations, on the host.

Müller and Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation",
2021 (arXiv 2103.10158), in the wide space of its table 2: one operation, drawn with its
magnitude, for every view. Nothing is tuned and no policy is searched.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from multigrain_jax.data.autoaugment import OPERATIONS

NUM_MAGNITUDES = 31
# Of 32 pixels of a crop of 224.
LARGEST_SHIFT = 32 / 224


class Range(NamedTuple):
    """What an operation of AutoAugment's table is given here.

    Attributes:
        low: the value of magnitude 0.
        high: the value of the largest magnitude.
        signed: whether the direction is random.
    """

    low: float = 0.0
    high: float = 0.0
    signed: bool = False


WIDE = {
    "identity": Range(),
    "autocontrast": Range(),
    "equalize": Range(),
    "rotate": Range(0, 135, True),
    "solarize": Range(256, 0),
    "color": Range(0, 0.99, True),
    "posterize": Range(8, 2),
    "contrast": Range(0, 0.99, True),
    "brightness": Range(0, 0.99, True),
    "sharpness": Range(0, 0.99, True),
    "shear_x": Range(0, 0.99, True),
    "shear_y": Range(0, 0.99, True),
    "translate_x": Range(0, LARGEST_SHIFT, True),
    "translate_y": Range(0, LARGEST_SHIFT, True),
}
NAMES = tuple(WIDE)


def apply_wide(
    image: Image.Image, operation: str, magnitude: int, *, sign: int = 1
) -> Image.Image:
    """One operation on an RGB image.

    Args:
        image: RGB.
        operation: a key of `WIDE`.
        magnitude: 0 to 30, equal steps from the operation's low to its high value.
        sign: 1 or -1, the direction of signed operations.
    """
    if operation == "identity":
        return image
    low, high, signed = WIDE[operation]
    value = low + (high - low) * magnitude / (NUM_MAGNITUDES - 1)
    # AutoAugment's rotations know no sign: theirs is the value's.
    if operation == "rotate":
        value, sign = value * sign, 1
    return OPERATIONS[operation].apply(image, value, sign if signed else 1)


def apply_trivial(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A horizontal flip (probability 1/2), then one operation at one magnitude.

    Args:
        rng: source of the draws; always four, whatever they come to.
        image: RGB.
    """
    flip, chosen, magnitude, direction = rng.random(4).tolist()
    if flip < 0.5:
        image = ImageOps.mirror(image)
    return apply_wide(
        image,
        NAMES[int(chosen * len(NAMES))],
        int(magnitude * NUM_MAGNITUDES),
        sign=1 if direction < 0.5 else -1,
    )
