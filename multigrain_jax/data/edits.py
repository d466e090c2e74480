"""What becomes of a photo that is copied: the edits that copy detection is tried with.

Each is a function of the photo alone. Where something is drawn by lot, the photo's own
pixels are the seed: the same photo is always edited in the same way, another one in
another.
"""

import io
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from multigrain_jax.data.decoding import PLAIN, decode

Edit = Callable[[Image.Image], Image.Image]

# Shapes are drawn so many times larger, and reduced: their borders are smooth.
OVERSAMPLING = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!?#@ "


def crop_center(image: Image.Image, *, area: float) -> Image.Image:
    """The central part of a photo, of its aspect ratio.

    Args:
        image: the photo.
        area: share of the photo's area that is kept, in (0, 1].
    """
    width, height = image.size
    new_width, new_height = (
        max(1, round(side * sqrt(area))) for side in (width, height)
    )
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return image.crop((left, top, left + new_width, top + new_height))


def recompress(image: Image.Image, *, quality: int) -> Image.Image:
    """A photo as JPEG leaves it.

    Args:
        image: the photo, RGB.
        quality: of Pillow's encoder, from 1 to 95.
    """
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=quality)
    return decode(encoded.getvalue(), PLAIN)


def rotate_and_flip(image: Image.Image, *, degrees: float) -> Image.Image:
    """A photo turned about its centre, and then its mirror image.

    It keeps its size: corners turn out of it, and black comes in.

    Args:
        image: the photo.
        degrees: of the turn, counter-clockwise.
    """
    return ImageOps.mirror(image.rotate(degrees, Image.Resampling.BICUBIC))


def overlay(image: Image.Image, *, num_shapes: int = 3) -> Image.Image:
    """A photo with shapes and a line of text on it, as people send them around.

    Each shape is a tenth to a quarter of the photo's shorter side; the text is
    about an eighth of it high, and no wider than the photo.

    Args:
        image: the photo, RGB.
        num_shapes: faces, hearts and stars.
    """
    rng, edited = _lots(image), image.copy()
    side = min(image.size)
    for _ in range(num_shapes):
        size = max(2, round(side * rng.uniform(0.1, 0.25)))
        shape = _draw_shape(rng, size)
        edited.paste(shape, _place(rng, image.size, shape.size), shape.getchannel("A"))
    mask = _text_mask(rng, height=max(2, round(side / 8)), most=image.width)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    edited.paste(colour, _place(rng, image.size, mask.size), mask)
    return edited


def strong(image: Image.Image) -> Image.Image:
    """A chain: a part, seen from aside, in other colours, drawn on, and compressed.

    70 % of the area, from anywhere; corners moved inwards by up to 15 % of the side;
    each channel times 0.6 to 1.4; `overlay`; JPEG of quality 20.

    Args:
        image: the photo, RGB.
    """
    rng, (width, height) = _lots(image), image.size
    new_width, new_height = (
        max(1, round(side * sqrt(0.7))) for side in (width, height)
    )
    left = int(rng.integers(0, width - new_width + 1))
    top = int(rng.integers(0, height - new_height + 1))
    part = image.crop((left, top, left + new_width, top + new_height))
    factors = rng.uniform(0.6, 1.4, 3)
    values = np.asarray(seen_from_aside(part, rng, most=0.15)) * factors
    coloured = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return recompress(overlay(coloured, num_shapes=1), quality=20)


def seen_from_aside(
    image: Image.Image, rng: np.random.Generator, *, most: float
) -> Image.Image:
    """A photo in perspective: its corners are taken from further inside.

    Args:
        image: the photo.
        rng: what draws the corners.
        most: how far inside a corner may lie, as a share of the sides.
    """
    width, height = image.size
    x, y = rng.uniform(0, most, 4) * width, rng.uniform(0, most, 4) * height
    corners = (
        *(x[0], y[0]),  # top left, and on against the clock
        *(x[1], height - y[1]),
        *(width - x[2], height - y[2]),
        *(width - x[3], y[3]),
    )
    return image.transform(
        image.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC
    )


# The copies that a model is tried with, by the names that tables have.
EDITS: Mapping[str, Edit] = {
    "crop 50 %": partial(crop_center, area=0.5),
    "crop 20 %": partial(crop_center, area=0.2),
    "JPEG 10": partial(recompress, quality=10),
    "rotation 15° + flip": partial(rotate_and_flip, degrees=15.0),
    "overlay": overlay,
    "strong": strong,
}


def _lots(image: Image.Image) -> np.random.Generator:
    """What draws for a photo: a generator whose seed are its pixels."""
    return np.random.default_rng([zlib.crc32(image.tobytes()), *image.size])


def _place(
    rng: np.random.Generator, outer: tuple[int, int], inner: tuple[int, int]
) -> tuple[int, int]:
    """Where something is pasted, wholly on the photo if it is the smaller one."""
    (width, height), (own_width, own_height) = outer, inner
    return (
        int(rng.integers(0, max(1, width - own_width + 1))),
        int(rng.integers(0, max(1, height - own_height + 1))),
    )


def _draw_shape(rng: np.random.Generator, size: int) -> Image.Image:
    """A face, a heart or a star: RGBA, `size` pixels wide and high."""
    large = OVERSAMPLING * size
    image = Image.new("RGBA", (large, large))
    SHAPES[int(rng.integers(len(SHAPES)))](ImageDraw.Draw(image), large)
    return image.reduce(OVERSAMPLING)


def _face(draw: ImageDraw.ImageDraw, size: int) -> None:
    draw.ellipse((0, 0, size - 1, size - 1), fill=(255, 204, 51, 255))
    for x in (0.32, 0.68):
        box = ((x - 0.07) * size, 0.28 * size, (x + 0.07) * size, 0.46 * size)
        draw.ellipse(box, fill=(60, 40, 10, 255))
    mouth = (0.25 * size, 0.3 * size, 0.75 * size, 0.8 * size)
    draw.arc(mouth, 20, 160, fill=(60, 40, 10, 255), width=max(1, size // 14))


def _heart(draw: ImageDraw.ImageDraw, size: int) -> None:
    red, half = (224, 36, 56, 255), size / 2
    draw.ellipse((0, 0.05 * size, 0.54 * size, 0.59 * size), fill=red)
    draw.ellipse((0.46 * size, 0.05 * size, size - 1, 0.59 * size), fill=red)
    sides = [(0.06 * size, 0.48 * size), (0.94 * size, 0.48 * size), (half, size - 1)]
    draw.polygon(sides, fill=red)


def _star(draw: ImageDraw.ImageDraw, size: int) -> None:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = size / 2 * np.where(np.arange(10) % 2, 0.4, 1.0)
    x, y = size / 2 + radii * np.cos(angles), size / 2 + radii * np.sin(angles)
    draw.polygon(
        list(zip(x.tolist(), y.tolist(), strict=True)), fill=(58, 134, 255, 255)
    )


SHAPES = (_face, _heart, _star)


def _text_mask(rng: np.random.Generator, *, height: int, most: int) -> Image.Image:
    """A line of letters as a mask "L", `height` pixels high, at most `most` wide."""
    count = int(rng.integers(6, 15))
    text = "".join(LETTERS[number] for number in rng.integers(0, len(LETTERS), count))
    # Pillow's own small letters: the same with every FreeType, and without it.
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font)
    width = min(most, max(1, round(mask.width * height / mask.height)))
    return mask.resize((width, height), Image.Resampling.BILINEAR)
