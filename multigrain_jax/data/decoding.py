"""From encoded files to RGB images as a viewer shows them: NumPy and Pillow only."""

import io
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageFile

from multigrain_jax.data.frames import frame_to_show
from multigrain_jax.data.image_file import (
    Enough,
    UndecodableImageError,
    UnknownFormatError,
    kind_of,
    open_image,
    quiet_pillow,
    reduced_size,
)
from multigrain_jax.data.mending import mend
from multigrain_jax.data.orientation import SIDEWAYS, orientation_of, turn_upright
from multigrain_jax.data.pixels import plain_rgb, stored_depth, viewer_rgb
from multigrain_jax.data.reduction import Part, part_of_reduced

PIXELS = ("viewer", "upright", "plain")
DEPTHS = ("metadata", "maximum")
SPEEDS = ("fast", "exact")
WHITE = (255, 255, 255)
# What decoding one pixel may take at most; of a photo, this many times its pixels.
BYTES_PER_PIXEL = 12

# How a record ends of photos that were decoded fast.
_FAST = ", fast"

Open = Callable[[], Image.Image]


@dataclass(frozen=True)
class Decoding:
    """How photos become pixels.

    Attributes:
        pixels: "viewer": as a viewer shows them, with transparency, colour profiles,
            bit depth, orientation and animations taken into account, and files whose
            end alone is missing read. "plain": what Pillow's own conversion gives, as
            published numbers were made. "upright": the same, turned as EXIF says.
        background: what is behind transparent parts; of "viewer".
        depth: of "viewer", what is white in a 16-bit image: "metadata", the largest
            value of its bit depth, or "maximum", its own largest value.
        fast: a JPEG much larger than what it, or every crop of it, is resized to is
            decoded at a half, a quarter or an eighth of its size, at least twice of
            what is needed.
        max_megapixels: larger photos are decoded at a half, a quarter or an eighth of
            their size where the format can, and are unreadable where it cannot.
    """

    pixels: str
    background: tuple[int, int, int]
    depth: str
    max_megapixels: float
    fast: bool

    @property
    def max_pixels(self) -> int:
        """How many pixels a decoded photo may have."""
        return int(self.max_megapixels * 1e6)

    @property
    def max_bytes(self) -> int:
        """What a file may have, and what decoding it may take besides."""
        return BYTES_PER_PIXEL * self.max_pixels

    def record(self) -> str:
        """What pixels depend on, in a line; `decoding_of_record` reads it."""
        # Exact is what records say nothing of.
        speed = _FAST if self.fast else ""
        if self.pixels != "viewer":
            return f"{self.pixels}{speed}"
        red, green, blue = self.background
        background = f"background #{red:02x}{green:02x}{blue:02x}"
        return f"viewer, {background}, depth {self.depth}{speed}"


# What the recipes say, for photos that no recipe reads.
VIEWER = Decoding("viewer", WHITE, "metadata", 128.0, fast=False)
PLAIN = Decoding("plain", WHITE, "metadata", 128.0, fast=False)


def decoding_of_record(record: str, *, max_megapixels: float) -> Decoding:
    """The settings that `Decoding.record` wrote.

    Raises:
        ValueError: another text.
    """
    pixels, *rest = record.split(", ")
    fast = was_fast(record)
    background, depth = WHITE, "metadata"
    if pixels == "viewer":
        colour, depth = (part.split(" ", 1)[1] for part in rest[:2])
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        background = (red, green, blue)
    found = Decoding(pixels, background, depth, max_megapixels, fast)
    if pixels not in PIXELS or depth not in DEPTHS or found.record() != record:
        raise ValueError(record)
    return found


def was_fast(record: str) -> bool:
    """Whether photos of such a record were decoded fast."""
    return record.endswith(_FAST)


def exact_record(record: str) -> str:
    """The record of the same photos where they are decoded exactly."""
    return record.removesuffix(_FAST)


class Decoded(NamedTuple):
    """A photo, and what there is to say of it.

    Attributes:
        image: RGB.
        notes: what its owner should know, such as "read, end missing".
    """

    image: Image.Image
    notes: tuple[str, ...]


class Reduced(NamedTuple):
    """A photo that may be smaller than it is stored, and what there is to say of it.

    Attributes:
        image: RGB.
        notes: as of `Decoded`.
        whole: width and height that it has where it is not reduced.
        part: which part of `image` that is, as of `part_of_reduced`.
    """

    image: Image.Image
    notes: tuple[str, ...]
    whole: tuple[int, int]
    part: Part


def decode(data: bytes, decoding: Decoding, *, side: int | None = None) -> Image.Image:
    """An encoded image as RGB; arguments and errors as of `decode_noted`."""
    return decode_noted(data, decoding, side=side).image


def decode_noted(
    data: bytes, decoding: Decoding, *, side: int | None = None
) -> Decoded:
    """An encoded image as RGB, and what there is to say of it.

    A file with missing rows is not accepted: they would be grey.

    Args:
        data: the file's bytes.
        decoding: how photos become pixels.
        side: the longer side that is enough for a thumbnail: a large photo is decoded
            at a fraction of its size where the format can; None: its whole size.

    Raises:
        UndecodableImageError: it cannot be decoded; the message says why.
    """
    return _decode(data, decoding, side)


def decode_reduced(
    data: bytes, decoding: Decoding, *, side: Callable[[int, int], int]
) -> Reduced:
    """An encoded image as RGB, of a JPEG if it is to be `fast` only as much as needed.

    Its header is read once. Errors as of `decode_noted`.

    Args:
        data: the file's bytes.
        decoding: how photos become pixels.
        side: of the width and height of the whole image, turned upright where
            `decoding` does that, the longer side that is enough of it.
    """
    whole: tuple[int, int] | None = None
    orientation = 1

    def enough(image: ImageFile.ImageFile, size: tuple[int, int]) -> int:
        nonlocal whole, orientation
        orientation = _orientation(image, decoding)
        whole = _turned(size, orientation)
        return side(*whole)

    image, notes = _decode(data, decoding, enough if decoding.fast else None)
    whole = whole or image.size
    part = part_of_reduced(whole, image.size, orientation)
    return Reduced(image, notes, whole, part)


def _decode(data: bytes, decoding: Decoding, side: int | Enough | None) -> Decoded:
    def read(encoded: bytes) -> Decoded:
        file = io.BytesIO(encoded)
        image = open_image(file, decoding.max_pixels, decoding.max_bytes, side)
        return _to_rgb(image, decoding)

    with quiet_pillow():
        try:
            return _or_mended(data, decoding, read)
        except UndecodableImageError:
            raise
        except UnknownFormatError as error:
            what = kind_of(data)
            raise UndecodableImageError(f"{what} ({len(data)} bytes)") from error
        except Exception as error:
            # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, …
            reason = str(error) or type(error).__name__
            raise UndecodableImageError(f"{len(data)} bytes: {reason}") from error


def _or_mended(
    data: bytes, decoding: Decoding, read: Callable[[bytes], Decoded]
) -> Decoded:
    try:
        image, notes = read(data)
    except (UndecodableImageError, UnknownFormatError):
        raise
    except Exception as error:
        mended = None
        if decoding.pixels == "viewer":
            traceback.clear_frames(error.__traceback__)  # they hold what was decoded
            mended = mend(data, max_bytes=decoding.max_bytes)
        if mended is None:
            raise
        image, notes = read(mended.data)
        return Decoded(image, (mended.note, *notes))
    # Pillow reads a PNG to its last row, and does not miss what should follow.
    is_png = data.startswith(b"\x89PNG")
    if is_png and decoding.pixels == "viewer" and data.rfind(b"IEND") < 0:
        notes = ("read, end missing", *notes)
    return Decoded(image, notes)


def rgb_of_opened(image: Image.Image, decoding: Decoding) -> Image.Image:
    """An opened image as RGB: what `decode` makes of its file's bytes.

    The image given is not changed, and is returned itself where there is nothing to
    do. A frame that it was moved to is taken as it is.

    Args:
        image: of any mode.
        decoding: how photos become pixels; its limit of size does not matter here.

    Raises:
        OSError, SyntaxError, …: Pillow cannot decode the image.
    """
    with quiet_pillow():
        try:
            return _to_rgb(image, decoding).image
        except Exception:
            file = getattr(image, "fp", None)
            if file is None or decoding.pixels != "viewer":
                raise
            file.seek(0)
            mended = mend(file.read(), max_bytes=decoding.max_bytes)
            if mended is None:
                raise
            return decode(mended.data, decoding)


def _to_rgb(image: Image.Image, decoding: Decoding) -> Decoded:
    """An opened image as RGB, turned upright where that is wanted."""
    notes: list[str] = []
    if decoding.pixels == "viewer":
        depth = stored_depth(image)
        frame = frame_to_show(image, notes)
        rgb = viewer_rgb(
            frame,
            depth,
            background=decoding.background,
            by_maximum=decoding.depth == "maximum",
            notes=notes,
        )
    else:
        # First, since Pillow turns a TIFF itself when it loads it.
        image.load()
        rgb = plain_rgb(image)
    return Decoded(turn_upright(rgb, _orientation(image, decoding)), tuple(notes))


def encoded_size(file: BinaryIO, decoding: Decoding) -> tuple[int, int]:
    """Width and height that `decode` gives an image, from its header alone.

    Args:
        file: the encoded bytes.
        decoding: how photos become pixels.

    Raises:
        UndecodableImageError: not an image; a broken body is not noticed.
    """

    def read(opened: BinaryIO) -> tuple[int, int]:
        image = open_image(opened, decoding.max_pixels, decoding.max_bytes, None)
        return _turned(reduced_size(image), _orientation(image, decoding, opened))

    with quiet_pillow():
        try:
            try:
                return read(file)
            except (UndecodableImageError, UnknownFormatError):
                raise
            except Exception:
                file.seek(0)
                data = file.read(decoding.max_bytes)
                mended = mend(data, max_bytes=decoding.max_bytes)
                if mended is None or decoding.pixels != "viewer":
                    raise
                return read(io.BytesIO(mended.data))
        except UndecodableImageError:
            raise
        except Exception as error:
            raise UndecodableImageError(str(error) or type(error).__name__) from error


def _orientation(
    image: Image.Image, decoding: Decoding, file: BinaryIO | None = None
) -> int:
    """From which orientation an opened image is to be turned; 1 is not at all."""
    return 1 if decoding.pixels == "plain" else orientation_of(image, file)


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of an image after it has been turned upright."""
    return (size[1], size[0]) if orientation in SIDEWAYS else size


__all__ = [
    "PLAIN",
    "VIEWER",
    "Decoded",
    "Decoding",
    "Reduced",
    "UndecodableImageError",
    "decode",
    "decode_noted",
    "decode_reduced",
    "encoded_size",
    "rgb_of_opened",
]
