"""From encoded files to RGB images, and from images to crops: NumPy and Pillow only."""

import io
import math
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CROP_ATTEMPTS = 10
RATIO_RANGE = (3 / 4, 4 / 3)
# The shorter side is resized to 256/224 of the crop's side.
SQUARE_RESIZE = 256 / 224
# Whatever a file is called, its content decides: some of Pillow's other readers start
# programs (EPS) or follow references.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
EXIF_ORIENTATION = 0x0112
EXIF_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

Box = tuple[int, int, int, int]


class UndecodableImageError(ValueError):
    """The bytes are not an image that Pillow can decode whole."""


def decode(data: bytes, *, apply_exif_orientation: bool = False) -> Image.Image:
    """An encoded image as RGB.

    Grey, palette, CMYK and transparent images are converted; 16-bit ones are scaled to
    8 bits. A truncated file is not accepted: its rest would be grey.

    Args:
        data: the file's bytes.
        apply_exif_orientation: turn the photo upright as its EXIF data says.

    Raises:
        UndecodableImageError: Pillow cannot decode it; the message says why.
    """
    try:
        image = _open(io.BytesIO(data))
        if apply_exif_orientation:
            return upright_rgb(image)
        image.load()
        return _to_rgb(image)
    except UnidentifiedImageError as error:
        what = "not an image file" if data else "an empty file"
        raise UndecodableImageError(f"{what} ({len(data)} bytes)") from error
    except Exception as error:
        # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, …
        reason = str(error) or type(error).__name__
        raise UndecodableImageError(f"{len(data)} bytes: {reason}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB, turned upright as its EXIF data says.

    What `decode` makes of a file's bytes. The image given is not changed, and is
    returned itself where there is nothing to do. One that `ImageOps.exif_transpose`
    has turned has no orientation any more and stays as it is.

    Args:
        image: of any mode, converted as `decode` says.

    Raises:
        OSError, SyntaxError, …: Pillow cannot decode the image or its EXIF data.
    """
    # First, since Pillow turns a TIFF itself when it loads it.
    image.load()
    if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return _to_rgb(image)


def _open(file: BinaryIO) -> Image.Image:
    """An image's header, of a format and a size that are read."""
    image = Image.open(file, formats=FORMATS)
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    # Pillow itself only warns up to twice its limit.
    if limit is not None and pixels > limit:
        raise UndecodableImageError(
            f"{image.width}x{image.height} pixels, more than Pillow's limit of {limit}"
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        # 16 bits to 8; Pillow's own conversion would clip everything above 255. The
        # 32-bit modes do not say what range they use.
        sixteen_bits = image.mode.startswith("I;16") or values.max(initial=0) > 255
        scale = 257.0 if sixteen_bits else 1.0
        grey = np.clip(np.round(values / scale), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB, Pillow warns. (Silencing it would not be safe in threads.)
        image = image.convert("RGBA")
    return image.convert("RGB")


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
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def encoded_size(
    file: BinaryIO, *, apply_exif_orientation: bool = False
) -> tuple[int, int]:
    """Width and height of an encoded image, from its header alone.

    Args:
        file: the encoded bytes.
        apply_exif_orientation: of the photo turned upright as its EXIF data says.

    Raises:
        UndecodableImageError: not an image; a broken body is not noticed.
    """
    try:
        with _open(file) as image:
            width, height = image.size
            orientation = 1
            # Pillow turns a TIFF itself, and gives its size as turned by the tag.
            turned = EXIF_ORIENTATION in getattr(image, "tag_v2", ())
            if apply_exif_orientation and not turned:
                orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception as error:
        raise UndecodableImageError(str(error) or type(error).__name__) from error
    return (height, width) if orientation in EXIF_SIDEWAYS else (width, height)


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
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    if mode == "rect":
        return image
    # Half a pixel is rounded to even, as Python rounds.
    left, top = (round((side - test_size) / 2) for side in size)
    return image.crop((left, top, left + test_size, top + test_size))
