"""Reads and writes index.csv: a line for every image of a folder of descriptors.

Paths are UTF-8, their other bytes written as `escape_name` does. Of version 1 paths are
the bytes as they are.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO

from multigrain_jax.descriptors.folder import (
    HEAD_FILE,
    INDEX_FILE,
    Block,
    Head,
    ImageStamp,
    IndexRow,
    read_head,
)
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name, require_content, unescape_name
from multigrain_jax.workdir import csv_rows, open_csv

COLUMNS = (*ImageStamp._fields, *IndexRow._fields[1:])
HEADER = (",".join(COLUMNS) + "\r\n").encode()
# How often a folder is looked at anew that its writer changes meanwhile.
_ATTEMPTS = 5


def read_index(folder: Path, num_rows: int) -> Iterator[IndexRow]:
    """The first `num_rows` lines of index.csv, one after the other, without a check.

    Raises:
        InputError: a line that `embed` did not write so, or no such file.
    """
    escaped = read_head(folder).version > 1
    try:
        require_content(folder / INDEX_FILE)
        file = open_csv(folder / INDEX_FILE, "r")
    except OSError as error:
        raise _unreadable(folder, error) from error
    with file:
        yield from _parse(file, num_rows, folder=folder, escaped=escaped)


def open_index(folder: Path) -> tuple[Head, int]:
    """What descriptors.json says, and index.csv of the same moment as a descriptor.

    A writer may be at work: whatever it does afterwards, the open file stays as it is
    up to what the head counts.

    Raises:
        InputError: the two do not belong together, or one cannot be read.
    """
    for attempt in range(_ATTEMPTS):
        head = read_head(folder)
        try:
            require_content(folder / INDEX_FILE)
            descriptor = os.open(folder / INDEX_FILE, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(folder, error) from error
        try:
            if head.version == 1 or _fits(descriptor, head):
                return head, descriptor
        except OSError as error:
            os.close(descriptor)
            raise _unreadable(folder, error) from error
        os.close(descriptor)
        if attempt and read_head(folder) == head:
            break
    raise InputError(
        f"{folder / INDEX_FILE}: cut, edited or damaged, not what {HEAD_FILE} was "
        "written for; run `embed` there again, which says how many lines are lost and "
        "makes their descriptors anew"
    )


def read_open_index(descriptor: int, head: Head, *, folder: Path) -> Iterator[IndexRow]:
    """All lines that count, of a file from `open_index`, which stays open."""
    with index_text(descriptor) as file:
        yield from _parse(file, head.num_rows, folder=folder, escaped=head.version > 1)


def blocks_in(data: bytes, blocks: Sequence[Block]) -> Iterator[list[IndexRow] | None]:
    """The lines of every block of an index, None where they are not as written."""
    start = len(HEADER)
    for block in blocks:
        part = data[start : start + block.bytes]
        start += block.bytes
        if hashlib.sha256(part).hexdigest() != block.digest:
            yield None
            continue
        text = io.StringIO(part.decode("utf-8", "surrogateescape"), newline="")
        yield [_index_row(line, escaped=True) for line in csv.reader(text)]


def block_of(rows: Sequence[IndexRow]) -> tuple[Block, bytes]:
    """Lines of the index as they are written, and what is known of them."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(
        (escape_name(row.image.path), *row.image[1:], *row[1:]) for row in rows
    )
    data = text.getvalue().encode("utf-8", "surrogateescape")
    return Block(len(rows), len(data), hashlib.sha256(data).hexdigest()), data


def _fits(descriptor: int, head: Head) -> bool:
    """Whether an open index is what one of the head's two lists of blocks tells."""
    states = [head.blocks, *([head.blocks_before] if head.blocks_before else [])]
    size = os.fstat(descriptor).st_size
    return any(
        sum(block.bytes for block in blocks) + len(HEADER) <= size
        and os.pread(descriptor, len(HEADER), 0) == HEADER
        and all(_digests_fit(descriptor, blocks))
        for blocks in states
    )


def _digests_fit(descriptor: int, blocks: Iterable[Block]) -> Iterator[bool]:
    start = len(HEADER)
    for block in blocks:
        part = os.pread(descriptor, block.bytes, start)
        start += block.bytes
        yield hashlib.sha256(part).hexdigest() == block.digest


def index_text(descriptor: int) -> IO[str]:
    """The text of an open index from its beginning; closing it leaves it open."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return open_csv(descriptor, "r", closefd=False)


def _parse(
    file: IO[str], num_rows: int, *, folder: Path, escaped: bool
) -> Iterator[IndexRow]:
    lines = csv_rows(file)
    number = 1
    try:
        with suppress(StopIteration):
            next(lines)
        for number, line in enumerate(islice(lines, num_rows), start=2):
            try:
                yield _index_row(line, escaped=escaped)
            except ValueError as error:
                raise InputError(
                    f"{folder / INDEX_FILE}, row {number}: {line} found, path, size, "
                    "mtime_ns, shard, row and status expected; if it was edited, undo "
                    "that, or embed the images anew, into another folder"
                ) from error
    except (csv.Error, OSError) as error:
        raise InputError(
            f"{folder / INDEX_FILE}, after row {number}: {error}; if it was edited, "
            "undo that, or embed the images anew, into another folder"
        ) from error
    if number - 1 < num_rows:
        raise InputError(
            f"{folder / INDEX_FILE}: {number - 1} lines found, {num_rows} expected; "
            "restore it from a copy, or embed the images anew, into another folder"
        )


def _index_row(line: Sequence[str], *, escaped: bool) -> IndexRow:
    path, size, mtime_ns, shard, row, status = line
    return IndexRow(
        ImageStamp(unescape_name(path) if escaped else path, int(size), int(mtime_ns)),
        int(shard) if shard else None,
        int(row) if row else None,
        status,
    )


def _unreadable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder / INDEX_FILE}: reading it failed ({error.strerror}); restore it from "
        "a copy, or run `embed` there again, which makes the descriptors anew"
    )
