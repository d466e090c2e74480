"""From images to crops of them: NumPy and Pillow only."""

import math

import numpy as np
from PIL import Image

CROP_ATTEMPTS = 10
RATIO_RANGE = (3 / 4, 4 / 3)
# The shorter side is resized to 256/224 of the crop's side.
SQUARE_RESIZE = 256 / 224
Box = tuple[int, int, int, int]


def random_crop_box(
    rng: np.random.Generator, width: int, height: int, *, area_min: float
) -> Box:
    """A random part of an image: left, top, right, bottom.

    Area uniform in [area_min, 1] of the image's, ratio log-uniform in [3/4, 4/3]; after
    ten draws that do not fit, the largest central part with a ratio in that range.

    Args:
        rng: source of the draws.
        width: of the image, in pixels.
        height: of the image, in pixels.
        area_min: smallest share of the image's area.
    """
    low, high = math.log(RATIO_RANGE[0]), math.log(RATIO_RANGE[1])
    draws = rng.random((CROP_ATTEMPTS, 4))
    for area_draw, ratio_draw, left_draw, top_draw in draws.tolist():
        area = width * height * (area_min + (1 - area_min) * area_draw)
        ratio = math.exp(low + (high - low) * ratio_draw)
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int((width - crop_width + 1) * left_draw)
            top = int((height - crop_height + 1) * top_draw)
            return left, top, left + crop_width, top + crop_height
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    crop_width, crop_height = width, height
    if width / height < RATIO_RANGE[0]:
        crop_height = round(width / RATIO_RANGE[0])
    elif width / height > RATIO_RANGE[1]:
        crop_width = round(height * RATIO_RANGE[1])
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def resize_crop(image: Image.Image, box: Box, size: int) -> Image.Image:
    """The part `box` of the image, resized to size x size (bilinear, antialiased).

    Cropped first: resizing with Pillow's `box` argument would let pixels from outside
    the box into its borders.
    """
    return cut(image, box).resize((size, size), Image.Resampling.BILINEAR)


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The part `box` of the image, however large."""
    left, top, right, bottom = box
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and (right - left) * (bottom - top) > limit:
        # Pillow's own crop would warn of so many pixels, which have been let in.
        return Image.fromarray(np.asarray(image)[top:bottom, left:right])
    return image.crop(box)


def resized_size(
    width: int, height: int, *, test_size: int, mode: str, smallest_side: int
) -> tuple[int, int]:
    """Width and height that an image is resized to before evaluation.

    "square": the shorter side becomes int(256/224 · test_size). "rect": the longer one
    becomes test_size. The other side is truncated to a whole number; for "rect" it is
    at least `smallest_side`, which only images of extreme proportions notice.

    Raises:
        ValueError: another mode.
    """
    if mode == "square":
        target, base = int(SQUARE_RESIZE * test_size), min(width, height)
    elif mode == "rect":
        target, base = test_size, max(width, height)
    else:
        raise ValueError(f"test_mode: found {mode!r}, expected 'square' or 'rect'")

    def resized(side: int) -> int:
        return target if side == base else max(smallest_side, int(target * side / base))

    return resized(width), resized(height)


def eval_transform(
    image: Image.Image, test_size: int, mode: str, *, smallest_side: int
) -> Image.Image:
    """An image as evaluation sees it: resized, and for "square" cropped.

    Args:
        image: RGB.
        test_size: S, in pixels.
        mode: "square": S x S from the centre; "rect": the whole image, longer side S.
        smallest_side: what the shorter side of a "rect" image has at least.
    """
    size = resized_size(
        *image.size, test_size=test_size, mode=mode, smallest_side=smallest_side
    )
    return resize_and_crop(image, size, test_size=test_size, mode=mode, part=None)


def resize_and_crop(
    image: Image.Image,
    size: tuple[int, int],
    *,
    test_size: int,
    mode: str,
    part: tuple[float, float, float, float] | None,
) -> Image.Image:
    """The second half of `eval_transform`.

    Args:
        image: RGB, whole or already reduced.
        size: width and height that it is resized to, by `resized_size` of the whole.
        test_size: S, in pixels.
        mode: "square" or "rect".
        part: left, top, right and bottom of the part of the image that counts; None is
            all of it.
    """
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR, box=part)
    if mode == "rect":
        return image
    # Half a pixel is rounded to even, as Python rounds.
    left, top = (round((side - test_size) / 2) for side in size)
    return image.crop((left, top, left + test_size, top + test_size))
