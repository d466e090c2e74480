"""Parts of large files, read by their places: photos that are packed together."""

import io
import os
from typing import BinaryIO, NamedTuple

from multigrain_jax.errors import printable

# How much is read at once to walk through a file: small jumps on a disk.
_DISK_BYTES = 4 << 10


class Stamp(NamedTuple):
    """By what a file that was replaced is known: its size, and its version or time."""

    size: int
    version: int


def stamp_of(path: str) -> Stamp:
    """The stamp of a file; OSError if there is none."""
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)


def read_at(path: str, offset: int, length: int, *, stamp: Stamp) -> bytes:
    """Some bytes of a file.

    The file is opened for this and closed again: so any number of files, threads and
    processes may read, and nothing has to be kept open.

    Args:
        path: the file.
        offset: where they begin.
        length: how many there are.
        stamp: what the file is known by.

    Raises:
        OSError: it cannot be read, is another file by now, or is cut off.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if (found.st_size, found.st_mtime_ns) != stamp:
            raise OSError(
                f"{printable(path)} has changed since it was indexed; start anew"
            )
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise OSError(
            f"{length} bytes were expected at {offset} of {printable(path)}, found "
            f"{len(data)}; copy the file again"
        )
    return data


def scan_bytes(path: str) -> int:
    """How many bytes to read at once of a file, to walk through it."""
    return _DISK_BYTES


class PartFile(io.RawIOBase):
    """A part of a file as a file of its own, which is read where it is asked for."""

    def __init__(self, path: str, offset: int, length: int, *, stamp: Stamp):
        """Open nothing yet; arguments as of `read_at`."""
        self._path, self._offset, self._length = path, offset, length
        self._stamp = stamp
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._length)
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """As of a file."""
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[override]  # any buffer
        """As of a file."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._length - self._position))
        if count:
            start = self._offset + self._position
            view[:count] = read_at(self._path, start, count, stamp=self._stamp)
            self._position += count
        return count


def open_part(
    path: str, offset: int, length: int, *, stamp: Stamp, buffer_bytes: int
) -> BinaryIO:
    """A part of a file, as an open file that reads so many bytes at once.

    Args:
        path: the file.
        offset: where the part begins.
        length: how many bytes it has.
        stamp: what the file is known by.
        buffer_bytes: how many are read ahead.
    """
    part = PartFile(path, offset, length, stamp=stamp)
    return io.BufferedReader(part, buffer_size=buffer_bytes)
