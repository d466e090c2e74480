"""Files whose pixels are all there, although something else of them is not."""

import hashlib
import io
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
END_MISSING = "read, end missing"
STRIP_PIXELS = 1 << 18
# Bits that no decoder takes for those of another one of them, or for the zeros with
# which libjpeg goes on where there are none.
FILLINGS = [bytes([first, *range(1, 255)]) * 8 for first in (0xAA, 0x55)]
RESTARTS = range(0xD0, 0xD8)  # markers between parts that are packed by themselves
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type
# Of an interlaced PNG: first column and row of each pass, and the steps between them.
PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


class Mended(NamedTuple):
    """A file that Pillow reads, and what there is to say of the original."""

    data: bytes
    note: str


def mend(data: bytes, *, max_bytes: int) -> Mended | None:
    """The file without its fault, or None where pixels are missing or wrong.

    A JPEG without its end, a PNG without its end or with faults beside its pixels.

    Args:
        data: of a file that cannot be read.
        max_bytes: what its pixels may take.
    """
    if data.startswith(JPEG_START):
        return _mend_jpeg(data)
    if data.startswith(PNG_START):
        return _mend_png(data, max_bytes)
    return None


def _mend_jpeg(data: bytes) -> Mended | None:
    whole = data.rstrip(b"\xff")
    if whole.endswith(JPEG_END):
        return None
    try:
        plain = _pixels(whole + JPEG_END)
        # Where a decoder still takes bits, different ones give different pixels.
        for filling in FILLINGS:
            parts = [filling, *(bytes([0xFF, mark]) + filling for mark in RESTARTS)]
            if _pixels(whole + b"".join(parts) + JPEG_END) != plain:
                return None
    except Exception:
        return None  # Pillow's decoders raise many kinds
    return Mended(whole + JPEG_END, END_MISSING)


def _pixels(data: bytes) -> bytes:
    """A digest of a JPEG's pixels: only one picture is in memory at a time."""
    digest = hashlib.blake2b()
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        rows = max(1, STRIP_PIXELS // image.width)
        for top in range(0, image.height, rows):
            strip = (0, top, image.width, min(top + rows, image.height))
            digest.update(image.crop(strip).tobytes())
    return digest.digest()


class Chunk(NamedTuple):
    """A part of a PNG.

    Attributes:
        kind: its name of four letters.
        data: what it holds, as far as the file has it.
        is_whole: whether its end is there too.
        is_sound: whether its checksum is right.
    """

    kind: bytes
    data: bytes
    is_whole: bool
    is_sound: bool


def png_chunks(file: BinaryIO, wanted: Collection[bytes]) -> Iterator[Chunk]:
    """The chunks of a PNG whose kind is among `wanted`; the others are passed over."""
    file.seek(len(PNG_START))
    while True:
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind in wanted:
            body, check = file.read(length), file.read(4)
            is_whole = len(body) == length and len(check) == 4
            is_sound = is_whole and zlib.crc32(kind + body) == int.from_bytes(check)
            yield Chunk(kind, body, is_whole, is_sound)
        else:
            file.seek(length + 4, io.SEEK_CUR)
        if kind == b"IEND":
            return


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk as it stands in a file."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


class _AnyKind:
    """What every kind of chunk is in."""

    def __contains__(self, kind: object) -> bool:
        return True

    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 1


def _mend_png(data: bytes, max_bytes: int) -> Mended | None:
    chunks = list(png_chunks(io.BytesIO(data), _AnyKind()))
    if not chunks or chunks[0].kind != b"IHDR" or not chunks[0].is_sound:
        return None
    kept = b""
    pixels: list[bytes] = []
    for chunk in chunks:
        if chunk.kind == b"IDAT":
            if chunk.is_whole and not chunk.is_sound:
                return None
            pixels.append(chunk.data)
        elif chunk.is_sound and chunk.kind not in (b"IEND", b"acTL", b"fcTL", b"fdAT"):
            kept += png_chunk(chunk.kind, chunk.data)
        elif chunk.kind in CRITICAL[:2]:
            return None
    expected = _png_bytes(chunks[0].data)
    if expected is None or expected > max_bytes:
        return None
    try:
        unpacked = zlib.decompressobj().decompress(b"".join(pixels), expected)
    except zlib.error:
        return None
    if len(unpacked) < expected:
        return None
    has_end = chunks[-1].kind == b"IEND" and chunks[-1].is_whole
    note = "read, parts beside its pixels are damaged" if has_end else END_MISSING
    body = png_chunk(b"IDAT", zlib.compress(unpacked, 1))
    return Mended(PNG_START + kept + body + png_chunk(b"IEND", b""), note)


def _png_bytes(header: bytes) -> int | None:
    """How many bytes the pixels of a PNG are before they are packed."""
    try:
        fields = struct.unpack(">IIBBBBB", header)
    except struct.error:
        return None
    width, height, bits, colour, _, _, interlaced = fields
    if colour not in CHANNELS:
        return None
    total = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns = max(0, -(-(width - left) // across))
        rows = max(0, -(-(height - top) // down))
        if columns:
            total += rows * (1 + -(-columns * bits * CHANNELS[colour] // 8))
    return total
