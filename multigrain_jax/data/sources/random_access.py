"""Parts of large files, read by their places: photos that are packed together.

A file is one of this machine, or an object of a bucket, of which ranges are asked for.
"""

import io
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from multigrain_jax import buckets
from multigrain_jax.data import bucket_tree
from multigrain_jax.data.bucket_paths import ADDRESSES
from multigrain_jax.errors import printable

# How much is read at once to walk through a file: small jumps on a disk, and few
# requests to a bucket.
_DISK_BYTES, _BUCKET_BYTES = 4 << 10, 8 << 20


class Stamp(NamedTuple):
    """By what a file that was replaced is known.

    Attributes:
        size: in bytes.
        version: when it changed, or another number for each writing of an object.
        generation: of an object, as the storage calls it; "" for a file.
    """

    size: int
    version: int
    generation: str = ""


def stamp_file(path: str) -> Stamp:
    """The stamp of a file or object; OSError if there is none."""
    if path.startswith(ADDRESSES):
        status = buckets.stat(path)
        return Stamp(*bucket_tree.stamp_of(status), status.generation)
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)


def read_at(path: str, offset: int, length: int, *, stamp: Stamp) -> bytes:
    """Some bytes of a file.

    The file is opened for this and closed again: so any number of files, threads and
    processes may read, and nothing has to be kept open.

    Args:
        path: the file, or the address of an object.
        offset: where they begin.
        length: how many there are.
        stamp: what the file is known by.

    Raises:
        OSError: it cannot be read, is another file by now, or is cut off.
    """
    if path.startswith(ADDRESSES):
        data = _read_range(path, offset, length, stamp)
    else:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if (found.st_size, found.st_mtime_ns) != stamp[:2]:
                raise _changed(path)
            file.seek(offset)
            data = file.read(length)
    if len(data) != length:
        raise OSError(
            f"{length} bytes were expected at {offset} of {printable(path)}, found "
            f"{len(data)}; copy the file again"
        )
    return data


def _read_range(path: str, offset: int, length: int, stamp: Stamp) -> bytes:
    if not length:
        return b""  # a range of nothing is none
    try:
        return buckets.read_range(path, offset, length, generation=stamp.generation)
    except buckets.ObjectChangedError as error:
        raise _changed(path) from error


def _changed(path: str) -> OSError:
    return OSError(f"{printable(path)} has changed since it was indexed; start anew")


def open_to_walk(path: str, *, stamp: Stamp) -> BinaryIO:
    """A whole file, open to be walked through from its beginning; close it after."""
    if path.startswith(ADDRESSES):
        size = stamp.size
        return open_part(path, 0, size, stamp=stamp, buffer_bytes=_BUCKET_BYTES)
    return open(path, "rb", buffering=_DISK_BYTES)


class PartFile(io.RawIOBase):
    """A part of a file as a file of its own, which is read where it is asked for."""

    def __init__(self, read: Callable[[int, int], bytes], offset: int, length: int):
        """Open nothing yet.

        Args:
            read: (offset, length) -> bytes of the file.
            offset: where the part begins.
            length: how many bytes it has.
        """
        self._read, self._offset, self._length = read, offset, length
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
            view[:count] = self._read(self._offset + self._position, count)
            self._position += count
        return count


def open_part(
    path: str, offset: int, length: int, *, stamp: Stamp, buffer_bytes: int
) -> BinaryIO:
    """A part of a file, as an open file that reads so many bytes at once.

    Args:
        path: the file, or the address of an object.
        offset: where the part begins.
        length: how many bytes it has.
        stamp: what the file is known by.
        buffer_bytes: how many are read ahead.
    """

    def read(start: int, count: int) -> bytes:
        return read_at(path, start, count, stamp=stamp)

    return io.BufferedReader(PartFile(read, offset, length), buffer_size=buffer_bytes)


class Window:
    """Reads a file of which one part, once read, is kept for the reads in it."""

    def __init__(self, path: str, *, stamp: Stamp):
        """Read nothing yet."""
        self._path, self._stamp = path, stamp
        self._start, self._data = 0, b""

    def keep(self, offset: int, length: int) -> None:
        """Read a part, in place of the one that is kept."""
        self._data = b""
        self._data = read_at(self._path, offset, length, stamp=self._stamp)
        self._start = offset

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes of the file; OSError as of `read_at`."""
        begin = offset - self._start
        if begin >= 0 and begin + length <= len(self._data):
            return self._data[begin : begin + length]
        return read_at(self._path, offset, length, stamp=self._stamp)

    def open(self) -> BinaryIO:
        """The whole file, open."""
        part = PartFile(self.read, 0, self._stamp.size)
        return io.BufferedReader(part, buffer_size=_DISK_BYTES)
