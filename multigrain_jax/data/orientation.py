"""How a photo lies: its orientation, read without anything else of its EXIF data."""

import re
import struct
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from multigrain_jax.data.mending import png_chunks

TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
# Those that bring the end of the stored rows or columns to the left, and to the top.
ENDS_LEFT, ENDS_TOP = (2, 3, 6, 7), (3, 4, 7, 8)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_HEADER = b"Exif\0\0"
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4  # types of EXIF
WIDTHS = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4}
XMP = re.compile(rb'tiff:Orientation(?:=["\']|>)([0-9])')


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as an orientation from 1 to 8 says."""
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image, file: BinaryIO | None = None) -> int:
    """The orientation of an opened image, 1 to 8; 1 where none can be known.

    Args:
        image: loaded or not.
        file: of an image that is not loaded: its bytes, to look for what a PNG has
            behind its pixels.
    """
    # Pillow turns a TIFF itself, and gives its size as turned by the tag.
    if isinstance(image, TiffImagePlugin.TiffImageFile) and TAG in image.tag_v2:
        return 1
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:
        exif = _of_hex(image.info["Raw profile type exif"])
    if exif is None and file is not None and image.format == "PNG":
        exif = _late_exif(file)
    found = exif_orientation(exif) if isinstance(exif, bytes) else None
    if found is None:
        xmp = image.info.get("xmp", image.info.get("XML:com.adobe.xmp", b""))
        xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
        match = XMP.search(xmp) if isinstance(xmp, bytes) else None
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def exif_orientation(exif: bytes) -> int | None:
    """The number that EXIF data gives as orientation, or None where it has none.

    Of text its first digit counts, of several numbers the first. Nothing else of the
    data is looked at, so that nothing else can be wrong.
    """
    exif = exif.removeprefix(EXIF_HEADER)
    order = BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack(f"{order}I", exif[4:8])
    count_bytes = exif[start : start + 2]
    if len(count_bytes) < 2:
        return None
    (count,) = struct.unpack(f"{order}H", count_bytes)
    for number in range(count):
        entry = exif[start + 2 + 12 * number : start + 14 + 12 * number]
        if len(entry) < 12:
            return None
        tag, kind, values = struct.unpack(f"{order}HHI", entry[:8])
        if tag == TAG:
            return _value(exif, order, kind, values, entry[8:])
    return None


def _value(exif: bytes, order: str, kind: int, count: int, field: bytes) -> int | None:
    width = WIDTHS.get(kind)
    if width is None:
        return None
    if width * count > len(field):
        (place,) = struct.unpack(f"{order}I", field)
        field = exif[place : place + width]
    first = field[:width]
    if len(first) < width:
        return None
    if kind == ASCII:
        return int(first) if first.isdigit() else None
    return int.from_bytes(first, "little" if order == "<" else "big")


def _of_hex(text: object) -> bytes | None:
    """EXIF data as ImageMagick writes it into a PNG: a header of lines, then hex."""
    try:
        return bytes.fromhex("".join(str(text).split("\n")[3:]))
    except ValueError:
        return None


def _late_exif(file: BinaryIO) -> bytes | None:
    place = file.tell()
    try:
        return next((c.data for c in png_chunks(file, (b"eXIf",))), None)
    finally:
        file.seek(place)
