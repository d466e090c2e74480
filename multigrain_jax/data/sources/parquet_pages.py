"""Where the values of a column of bytes are in a Parquet file.

PyArrow reads a row group at least, which is a hundred photos where one is wanted. So
the pages of a column are looked through once, and of each value is kept what has to be
read and unpacked for it. What is found is compared with what PyArrow reads
(`parquet.py`): a form that is not known here is slower to read, never wrong.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from multigrain_jax.data.sources.varint import read_varint

# Of the format: kinds of pages, and how their values are written.
DATA, DICTIONARY, DATA_V2 = 0, 2, 3
PLAIN_ENCODINGS = (0, 2)
LENGTH_BYTES = 4
# Snappy packs so many bytes at once, each block of them without a view of the others.
SNAPPY_BLOCK = 1 << 16
SNAPPY, UNPACKED = "snappy", ""
_HEADER_BYTES = 1 << 10
_MAX_HEADER_BYTES = 16 << 20
_MAX_PAGE_BYTES = (1 << 31) - 1


class Place(NamedTuple):
    """What is read and unpacked for a value, as of `PLACE`."""

    offset: int
    stored: int
    unpacked: int
    start: int
    length: int


class Chunk(NamedTuple):
    """The part of a file that holds one column of one row group.

    Attributes:
        offset: where it begins.
        length: how many bytes it has.
        has_levels: whether values may be null.
        codec: how pages are packed, as PyArrow calls it; "": they are not.
    """

    offset: int
    length: int
    has_levels: bool
    codec: str


def find_values(
    read: Callable[[int, int], bytes],
    chunk: Chunk,
    unpack: Callable[[bytes, int], bytes],
) -> Iterator[tuple[Place, bytes]]:
    """The place and the bytes of each value that is written as such.

    A value that several rows have may come once. Pages of other forms are passed over.

    Args:
        read: (offset, length) -> bytes of the file.
        chunk: which part of the file.
        unpack: (packed, size of what comes out) -> that.

    Raises:
        ValueError: there is no page where one should be.
    """
    offset, end = chunk.offset, chunk.offset + chunk.length
    while offset < end:
        header, size = _read_header(read, offset, end)
        stored, unpacked = int(header[3]), int(header[2])
        body = offset + size
        offset = body + stored
        if not 0 <= stored <= end - body or not 0 <= unpacked <= _MAX_PAGE_BYTES:
            raise ValueError(f"a page of {stored} bytes at {body}")
        page = _plain_page(header, chunk.has_levels)
        if page is None:
            continue
        skipped, is_packed, has_levels = page
        data = read(body + skipped, stored - skipped)
        codec = chunk.codec if is_packed else UNPACKED
        yield from _values_of_page(
            data, body + skipped, unpacked - skipped, codec, has_levels, unpack
        )


def pack_length(length: int) -> bytes:
    """A length as Snappy has it before the blocks."""
    encoded = bytearray()
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _plain_page(
    header: dict[int, Any], has_levels: bool
) -> tuple[int, bool, bool] | None:
    """Of a page of plain values: (unpacked bytes before, packed?, levels inside?)."""
    kind = header[1]
    if kind == DICTIONARY and header[7][2] in PLAIN_ENCODINGS:
        return 0, True, False
    if kind == DATA and header[5][2] == 0:
        return 0, True, has_levels
    if kind == DATA_V2 and header[8][4] == 0:
        fields = header[8]
        return int(fields[5]) + int(fields[6]), bool(fields.get(7, True)), False
    return None


def _values_of_page(
    data: bytes,
    offset: int,
    size: int,
    codec: str,
    has_levels: bool,
    unpack: Callable[[bytes, int], bytes],
) -> Iterator[tuple[Place, bytes]]:
    """The values of a page whose packed bytes begin at `offset` of the file."""
    values = data if codec == UNPACKED else unpack(data, size)
    position = 0
    if has_levels:
        position = LENGTH_BYTES + int.from_bytes(values[:LENGTH_BYTES], "little")
    starts = _block_starts(data) if codec == SNAPPY else []
    while position < len(values):
        start = position + LENGTH_BYTES
        length = int.from_bytes(values[position:start], "little")
        position = start + length
        if position > len(values):
            return  # no plain values after all
        if not length:
            continue
        if codec == UNPACKED:
            place = Place(offset + start, length, 0, 0, length)
        elif codec == SNAPPY:
            place = _place_in_blocks(starts, offset, size, start, length)
            begin = place.offset - offset
            packed = pack_length(place.unpacked) + data[begin : begin + place.stored]
            part = unpack(packed, place.unpacked)
            if part[place.start : place.start + length] != values[start:position]:
                return  # other blocks than are known here
        else:
            place = Place(offset, len(data), size, start, length)
        yield place, values[start:position]


def _place_in_blocks(
    starts: list[int], offset: int, size: int, start: int, length: int
) -> Place:
    """What to read and unpack for a value that is in some of Snappy's blocks."""
    first, last = start // SNAPPY_BLOCK, (start + length - 1) // SNAPPY_BLOCK
    if len(starts) == 2:  # blocks that depend on each other
        first, last, block_end = 0, 0, size
    else:
        block_end = min((last + 1) * SNAPPY_BLOCK, size)
    begin = first * SNAPPY_BLOCK
    return Place(
        offset + starts[first],
        starts[last + 1] - starts[first],
        block_end - begin,
        start - begin,
        length,
    )


def _block_starts(data: bytes) -> list[int]:
    """Where each of Snappy's blocks begins in what it packed, and where the last ends.

    Where a block needs what was before it: where the first begins, and the end.
    """
    size, position = read_varint(data, 0)
    first, starts, done = position, [position], 0
    while position < len(data):
        tag = data[position]
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            position += 1
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(data[position : position + extra], "little")
                position += extra
            length += 1
            position += length
        else:
            width = (2, 3, 5)[kind - 1]
            back = int.from_bytes(data[position + 1 : position + width], "little")
            length = (tag >> 2) + 1
            if kind == 1:
                length, back = 4 + ((tag >> 2) & 7), (tag >> 5) << 8 | back
            position += width
            if back > done % SNAPPY_BLOCK:
                return [first, len(data)]
        block = done // SNAPPY_BLOCK
        done += length
        if done % SNAPPY_BLOCK == 0:
            starts.append(position)
        elif done // SNAPPY_BLOCK != block:
            return [first, len(data)]
    if done != size:
        return [first, len(data)]
    return starts if done % SNAPPY_BLOCK == 0 else [*starts, position]


def _read_header(
    read: Callable[[int, int], bytes], offset: int, end: int
) -> tuple[dict[int, Any], int]:
    """The header of a page, and how many bytes it has."""
    length = _HEADER_BYTES
    while True:
        data = read(offset, min(length, end - offset))
        try:
            return _struct(data, 0)
        except IndexError as error:
            if length >= min(_MAX_HEADER_BYTES, end - offset):
                raise ValueError(f"no header of a page at {offset}") from error
            length *= 8


def _struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    """The fields of a structure in Thrift's compact protocol, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[position]:
        position += 1
        if head >> 4:
            number += head >> 4
        else:
            value, position = read_varint(data, position)
            number = _signed(value)
        kind = head & 15
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind == 3:
            fields[number] = data[position]
            position += 1
        elif kind in (4, 5, 6):
            value, position = read_varint(data, position)
            fields[number] = _signed(value)
        elif kind == 7:
            position += 8
        elif kind == 8:
            length, position = read_varint(data, position)
            position += length
        elif kind == 12:
            fields[number], position = _struct(data, position)
        else:
            raise ValueError(f"a field of kind {kind} in the header of a page")
    return fields, position + 1


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)
