"""Views like the copies that are made of photos, with Pillow, on the host.

A chain of edits of random strength, as SSCD trains on ("A self-supervised descriptor
for image copy detection", arXiv 2202.10261) and as they occur in the Image Similarity
Challenge (arXiv 2106.09672).

Three kinds of edits are left out, so that a benchmark of copies can tell what a
descriptor makes of edits that it was not trained on: turns by more than
`ROTATION_DEGREES`, perspective, and overlaid drawings (emoji, hearts, stars: anything
round or drawn). What is overlaid is text and plain rectangles.
"""

import io
import string
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

MAX_EDITS = 4
ROTATION_DEGREES = 5.0
JPEG_QUALITIES = (90, 10)  # of the weakest edit and of the strongest
SMALLEST_CROP = 0.3  # share of the view that its strongest crop keeps
SMALLEST_FRAMED = 0.5  # side of the most framed view, of the frame's
GREY_SHARE = 0.15  # of the changes of colour that leave none
COLOUR_RANGE = 0.7  # factors of brightness, contrast and saturation: 1 - this, 1 + this
LETTERS = string.ascii_letters + string.digits + " .,:!?#@&%"
# Letters are drawn once, so large, and shrunk to the size that is wanted.
GLYPH_SIZE, GLYPH_HEIGHT, GLYPH_STROKE = 32, 42, 1

# (source of draws, RGB view, level in [0, 1]) -> RGB view of the same size.
Edit = Callable[[np.random.Generator, Image.Image, float], Image.Image]


def apply_copies(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A horizontal flip (probability 1/2), then a chain of none to four edits.

    A strength is drawn for the whole view: it says how many edits there are, each of
    another kind and in random order, and bounds the level of each.

    Args:
        rng: source of the draws.
        image: RGB.
    """
    flip, strength = rng.random(2)
    if flip < 0.5:
        image = ImageOps.mirror(image)
    count = int(strength * (MAX_EDITS + 1))
    for kind in rng.permutation(len(EDITS))[:count].tolist():
        level = float(strength * (0.5 + 0.5 * rng.random()))
        image = EDITS[COPY_EDITS[kind]](rng, image, level)
    return image


def crop_again(
    rng: np.random.Generator, image: Image.Image, level: float
) -> Image.Image:
    """A part of the view, resized to all of it."""
    (width, height), shares = image.size, rng.random(2)
    side = (1 - (1 - SMALLEST_CROP) * level) ** 0.5
    size = max(1, round(side * width)), max(1, round(side * height))
    left, top = _place(image.size, size, shares)
    box = (left, top, left + size[0], top + size[1])
    return image.crop(box).resize((width, height), Image.Resampling.BILINEAR)


def frame(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """The view, smaller, somewhere on a plain ground."""
    shares = rng.random(2)
    side = 1 - (1 - SMALLEST_FRAMED) * level
    size = max(1, round(side * image.width)), max(1, round(side * image.height))
    framed = Image.new("RGB", image.size, _colour(rng))
    smaller = image.resize(size, Image.Resampling.BILINEAR)
    framed.paste(smaller, _place(image.size, size, shares))
    return framed


def rotate(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """A slight turn in either direction, the corners filled with one colour."""
    angle = ROTATION_DEGREES * level * (1 if rng.random() < 0.5 else -1)
    return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=_colour(rng))


def recolour(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """Brightness, contrast and saturation changed, or no colour left."""
    grey, *draws = rng.random(4)
    if grey < GREY_SHARE:
        return image.convert("L").convert("RGB")
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, draw in zip(kinds, draws, strict=True):
        image = kind(image).enhance(1 + COLOUR_RANGE * level * (2 * draw - 1))
    return image


def blur(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """A Gaussian blur, its radius at most 1/56 of the view's side."""
    radius = level * (0.3 + 0.7 * rng.random()) * min(image.size) / 56
    return image.filter(ImageFilter.GaussianBlur(radius))


def pixelate(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """Shrunk to as little as a quarter of its side, and enlarged again."""
    smooth = rng.random() < 0.5
    factor = 1 + 3 * level
    size = max(1, round(image.width / factor)), max(1, round(image.height / factor))
    shrunk = image.resize(size, Image.Resampling.BOX)
    enlarge = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return shrunk.resize(image.size, enlarge)


def reencode(rng: np.random.Generator, image: Image.Image, level: float) -> Image.Image:
    """Through a JPEG file of low quality; no draws."""
    del rng
    best, worst = JPEG_QUALITIES
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=round(best + (worst - best) * level))
    with Image.open(encoded, formats=("JPEG",)) as decoded:
        return decoded.convert("RGB")


def overlay_text(
    rng: np.random.Generator, image: Image.Image, level: float
) -> Image.Image:
    """One to three lines of letters in one colour, anywhere, also cut by the border."""
    image = image.copy()
    height_draw, opacity, *shares = rng.random(4)
    lines = 1 + int(3 * level * rng.random())
    colour = _colour(rng)
    height = max(4, round(image.height * (0.06 + 0.2 * level * height_draw)))
    inks = np.rint(np.arange(256) * (0.5 + 0.5 * opacity)).astype(int).tolist()
    left = round((1.2 * shares[0] - 0.2) * image.width)
    top = round(shares[1] * (image.height - height))
    for line in range(lines):
        count = 2 + int(14 * rng.random())
        letters = "".join(LETTERS[n] for n in rng.integers(0, len(LETTERS), count))
        mask = _written(letters, height).point(inks)
        image.paste(colour, (left, top + line * height), mask)
    return image


def overlay_bars(
    rng: np.random.Generator, image: Image.Image, level: float
) -> Image.Image:
    """One to three plain rectangles, from faint to opaque, some across the whole view.

    Each covers at most an eighth of the view, but for the strips across it.
    """
    image = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(1 + int(3 * level * rng.random())):
        area, ratio, left, top, opacity, across = rng.random(6)
        side = (0.125 * level * (0.2 + 0.8 * area)) ** 0.5
        stretch = 3 ** (2 * ratio - 1)
        bar_width = width if across < 0.25 else round(side * stretch**0.5 * width)
        bar_height = max(1, round(side / stretch**0.5 * height))
        x, y = _place(image.size, (bar_width, bar_height), np.array([left, top]))
        fill = (*_colour(rng), round(255 * (0.4 + 0.6 * opacity)))
        draw.rectangle((x, y, x + bar_width - 1, y + bar_height - 1), fill=fill)
    return image


EDITS: dict[str, Edit] = {
    "crop": crop_again,
    "frame": frame,
    "rotate": rotate,
    "recolour": recolour,
    "blur": blur,
    "pixelate": pixelate,
    "jpeg": reencode,
    "text": overlay_text,
    "bars": overlay_bars,
}
COPY_EDITS = tuple(EDITS)


def _place(
    outer: tuple[int, int], inner: tuple[int, int], shares: np.ndarray
) -> tuple[int, int]:
    """Left and top of a rectangle within another, for draws from [0, 1)."""
    left, top = (
        int(share * (o - i + 1))
        for share, o, i in zip(shares.tolist(), outer, inner, strict=True)
    )
    return left, top


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _written(letters: str, height: int) -> Image.Image:
    """A mask of letters in a row: "L", 255 where there is ink."""
    glyphs = [_glyph(letter) for letter in letters]
    width = sum(glyph.width for glyph in glyphs)
    line = Image.new("L", (width, GLYPH_HEIGHT))
    left = 0
    for glyph in glyphs:
        line.paste(glyph, (left, 0))
        left += glyph.width
    size = max(1, round(width * height / GLYPH_HEIGHT)), height
    return line.resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=len(LETTERS))
def _glyph(letter: str) -> Image.Image:
    """The mask of one letter, which many threads may read."""
    font = ImageFont.load_default(GLYPH_SIZE)
    width = round(font.getlength(letter)) + 2 * GLYPH_STROKE
    glyph = Image.new("L", (width, GLYPH_HEIGHT))
    ImageDraw.Draw(glyph).text(
        (GLYPH_STROKE, 0), letter, fill=255, font=font, stroke_width=GLYPH_STROKE
    )
    return glyph
