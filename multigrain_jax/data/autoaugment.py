"""AutoAugment's ImageNet policy with Pillow's operations, on the host.

Cubuk et al., "AutoAugment: learning augmentation strategies from data", 2019, in the
variant of the original MultiGrain (24 sub-policies; rotations have no random sign).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

FILL = (128, 128, 128)
NUM_MAGNITUDES = 10


class Operation(NamedTuple):
    """One operation and the meaning of its magnitudes.

    Attributes:
        apply: (image, magnitude, sign) -> image.
        low: the value of magnitude 0.
        high: the value of magnitude 9.
        signed: whether the direction is random.
    """

    apply: Callable[[Image.Image, float, int], Image.Image]
    low: float
    high: float
    signed: bool


class Step(NamedTuple):
    """An operation of a sub-policy: its name, magnitude 0-9 and probability."""

    operation: str
    magnitude: int
    probability: float


def _affine(
    image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling
) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL
    )


def _shear_x(image: Image.Image, value: float, sign: int) -> Image.Image:
    return _affine(image, (1, value * sign, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(image: Image.Image, value: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, value * sign, 1, 0), Image.Resampling.BICUBIC)


def _translate_x(image: Image.Image, value: float, sign: int) -> Image.Image:
    shift = value * image.size[0] * sign
    return _affine(image, (1, 0, shift, 0, 1, 0), Image.Resampling.NEAREST)


def _translate_y(image: Image.Image, value: float, sign: int) -> Image.Image:
    shift = value * image.size[1] * sign
    return _affine(image, (1, 0, 0, 0, 1, shift), Image.Resampling.NEAREST)


def _rotate(image: Image.Image, value: float, sign: int) -> Image.Image:
    return image.rotate(value, Image.Resampling.NEAREST, fillcolor=FILL)


def _enhance(
    kind: type,
) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, value, sign: kind(image).enhance(1 + value * sign)


OPERATIONS = {
    "shear_x": Operation(_shear_x, 0, 0.3, True),
    "shear_y": Operation(_shear_y, 0, 0.3, True),
    "translate_x": Operation(_translate_x, 0, 150 / 331, True),
    "translate_y": Operation(_translate_y, 0, 150 / 331, True),
    "rotate": Operation(_rotate, 0, 30, False),
    "color": Operation(_enhance(ImageEnhance.Color), 0, 0.9, True),
    "contrast": Operation(_enhance(ImageEnhance.Contrast), 0, 0.9, True),
    "brightness": Operation(_enhance(ImageEnhance.Brightness), 0, 0.9, True),
    "sharpness": Operation(_enhance(ImageEnhance.Sharpness), 0, 0.9, True),
    "posterize": Operation(
        lambda image, value, sign: ImageOps.posterize(image, round(value)), 8, 4, False
    ),
    "solarize": Operation(
        lambda image, value, sign: ImageOps.solarize(image, value), 256, 0, False
    ),
    "autocontrast": Operation(
        lambda image, value, sign: ImageOps.autocontrast(image), 0, 0, False
    ),
    "equalize": Operation(
        lambda image, value, sign: ImageOps.equalize(image), 0, 0, False
    ),
    "invert": Operation(lambda image, value, sign: ImageOps.invert(image), 0, 0, False),
}

IMAGENET_POLICY = (
    (Step("posterize", 8, 0.4), Step("rotate", 9, 0.6)),
    (Step("solarize", 5, 0.6), Step("autocontrast", 5, 0.6)),
    (Step("equalize", 8, 0.8), Step("equalize", 3, 0.6)),
    (Step("posterize", 7, 0.6), Step("posterize", 6, 0.6)),
    (Step("equalize", 7, 0.4), Step("solarize", 4, 0.2)),
    (Step("equalize", 4, 0.4), Step("rotate", 8, 0.8)),
    (Step("solarize", 3, 0.6), Step("equalize", 7, 0.6)),
    (Step("posterize", 5, 0.8), Step("equalize", 2, 1.0)),
    (Step("rotate", 3, 0.2), Step("solarize", 8, 0.6)),
    (Step("equalize", 8, 0.6), Step("posterize", 6, 0.4)),
    (Step("rotate", 8, 0.8), Step("color", 0, 0.4)),
    (Step("rotate", 9, 0.4), Step("equalize", 2, 0.6)),
    (Step("equalize", 7, 0.0), Step("equalize", 8, 0.8)),
    (Step("invert", 4, 0.6), Step("equalize", 8, 1.0)),
    (Step("color", 4, 0.6), Step("contrast", 8, 1.0)),
    (Step("rotate", 8, 0.8), Step("color", 2, 1.0)),
    (Step("color", 8, 0.8), Step("solarize", 7, 0.8)),
    (Step("sharpness", 7, 0.4), Step("invert", 8, 0.6)),
    (Step("shear_x", 5, 0.6), Step("equalize", 9, 1.0)),
    (Step("color", 0, 0.4), Step("equalize", 3, 0.6)),
    (Step("equalize", 7, 0.4), Step("solarize", 4, 0.2)),
    (Step("solarize", 5, 0.6), Step("autocontrast", 5, 0.6)),
    (Step("invert", 4, 0.6), Step("equalize", 8, 1.0)),
    (Step("color", 4, 0.6), Step("contrast", 8, 1.0)),
)


def apply_operation(
    image: Image.Image, operation: str, magnitude: int, *, sign: int = 1
) -> Image.Image:
    """One operation on an RGB image.

    Args:
        image: RGB.
        operation: a key of `OPERATIONS`.
        magnitude: 0 to 9, equal steps from the operation's low to its high value.
        sign: 1 or -1, the direction of signed operations.
    """
    row = OPERATIONS[operation]
    value = np.linspace(row.low, row.high, NUM_MAGNITUDES)[magnitude]
    return row.apply(image, float(value), sign if row.signed else 1)


def apply_policy(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A horizontal flip (probability 1/2), then one random sub-policy.

    Args:
        rng: source of the draws; always six, whatever they come to.
        image: RGB.
    """
    flip, chosen, *draws = rng.random(6)
    if flip < 0.5:
        image = ImageOps.mirror(image)
    steps = IMAGENET_POLICY[int(chosen * len(IMAGENET_POLICY))]
    for step, gate, direction in zip(steps, draws[:2], draws[2:], strict=True):
        if gate < step.probability:
            image = apply_operation(
                image, step.operation, step.magnitude, sign=1 if direction < 0.5 else -1
            )
    return image
