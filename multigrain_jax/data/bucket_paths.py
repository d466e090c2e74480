"""Files and folders of buckets as paths: whatever reads a folder reads them."""

import errno
import fnmatch
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import IO, Any

from multigrain_jax import buckets
from multigrain_jax.data.bucket_tree import Folder, listed, stamp_url
from multigrain_jax.data.cache import cache_folder, write_whole
from multigrain_jax.errors import InputError

# How an address begins, for names that may be one and are many.
ADDRESSES = ("gs://", "s3://")

CACHE_KIND = "buckets"
# A header is read by pieces of this size.
PIECE = 64 << 10


class BucketPath(PosixPath):
    """A file or folder of a bucket, to be read.

    It is a `Path`, so that what takes a folder of this machine takes one of a bucket;
    whatever asks the system about it by name finds nothing, since there is no such
    file. Contents that are opened are kept in the cache folder by address and version.
    """

    def __str__(self) -> str:
        """The address, with both its slashes."""
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        """The address, which is the name of no file."""
        return str(self)

    def absolute(self) -> "BucketPath":
        """The same."""
        return self

    def expanduser(self) -> "BucketPath":
        """The same."""
        return self

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether anything lies below it."""
        tree, name = listed(str(self))
        return tree.has(name)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object of this name."""
        try:
            stamp_url(str(self))
        except FileNotFoundError:
            return False
        return True

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is an object, or has some below it."""
        return self.is_file() or self.is_dir()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and, for its time of change, version."""
        try:
            size, version = stamp_url(str(self))
            mode = stat.S_IFREG
        except FileNotFoundError:
            if not self.is_dir():
                raise
            size, version, mode = 0, 0, stat.S_IFDIR
        times = (0, version // 10**9, 0)
        more = {"st_atime_ns": 0, "st_mtime_ns": version, "st_ctime_ns": 0}
        return os.stat_result((mode, 0, 0, 1, 0, 0, size, *times), more)

    def folder(self) -> Folder:
        """What is directly in it; FileNotFoundError where nothing is."""
        tree, name = listed(str(self))
        if not tree.has(name):
            raise FileNotFoundError(errno.ENOENT, "nothing below it", str(self))
        return tree.folders[name]

    def iterdir(self) -> Iterator["BucketPath"]:
        """What is directly in it, folders first."""
        inside = self.folder()
        return (self / name for name in (*inside.folders, *inside.names))

    def glob(
        self, pattern: str, *, case_sensitive: bool | None = None
    ) -> Iterator["BucketPath"]:
        """What is named so, one part of the pattern for each folder; no `**`."""
        first, _, rest = pattern.partition("/")
        if not self.is_dir():
            return
        inside = self.folder()
        for name in (*inside.folders, *(() if rest else inside.names)):
            if fnmatch.fnmatchcase(name, first):
                yield from (self / name).glob(rest) if rest else iter([self / name])

    def files_below(self) -> list[str]:
        """All objects below it, by their names from here."""
        tree, name = listed(str(self))
        prefix = f"{name}/" if name else ""
        return [f[len(prefix) :] for f in tree.files() if f.startswith(prefix)]

    def strange_below(self) -> int:
        """How many objects below the address that was listed no folder can hold."""
        return listed(str(self))[0].num_strange

    def read_bytes(self) -> bytes:
        """The object's bytes; OSError as of `buckets.read_bytes`."""
        return buckets.read_bytes(str(self))

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """The object's content, in a file of the cache folder."""
        if set(mode) - set("rbt"):
            raise io.UnsupportedOperation(f"{self} is read only here")
        return self.kept().open(mode, buffering, encoding, errors, newline)

    def kept(self) -> Path:
        """A file of the cache folder with the object's bytes, fetched if need be.

        Raises:
            OSError: as of `buckets.read_bytes`, or of the disk.
        """
        url = str(self)
        stamp = stamp_url(url)
        name = hashlib.sha256(f"{url}\0{stamp.version}".encode()).hexdigest()
        file = cache_folder(CACHE_KIND) / "files" / name
        try:
            if file.stat().st_size == stamp.size:
                return file
        except OSError:
            pass  # not yet
        write_whole(file, buckets.read_bytes(url))
        return file


def as_path(path: str | Path) -> Path:
    """A path as it was given: of this machine, without ~, or of a bucket.

    Raises:
        InputError: an address of another kind.
    """
    if isinstance(path, BucketPath):
        return path
    if not buckets.is_bucket(path):
        return Path(os.path.expanduser(path))
    return BucketPath(buckets.normalize(path))


def file_path(name: str) -> Path:
    """The path of a photo, by the name that a source has for it, whatever is in it."""
    return BucketPath(name) if name.startswith(ADDRESSES) else Path(name)


def local_path(path: str | Path, *, what: str) -> Path:
    """A path that has to be one of this machine.

    Args:
        path: as it was given.
        what: what it is for, for an error.

    Raises:
        InputError: it is an address in a bucket.
    """
    if buckets.is_bucket(path):
        raise InputError(
            f"{what}: found {buckets.normalize(path)}, expected a path of this "
            "machine; name one, and copy between it and the bucket"
        )
    return Path(path)


def absolute_path(path: str | Path) -> str:
    """A path that means the same from anywhere, as it is recorded and compared."""
    if buckets.is_bucket(path):
        return buckets.normalize(path)
    return os.path.abspath(os.path.expanduser(path))


def list_names(folder: Path) -> list[str]:
    """The names of what is directly in a folder; OSError if it cannot be listed."""
    if isinstance(folder, BucketPath):
        inside = folder.folder()
        return [*inside.folders, *inside.names]
    return os.listdir(folder)


class ObjectFile(io.RawIOBase):
    """An object as a file to look into: read by parts, as they are asked for."""

    def __init__(self, url: str, size: int):
        """Open nothing yet."""
        super().__init__()
        self._url, self._size, self._place = url, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}
        self._place = max(0, start[whence] + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or less at the end."""
        length = min(len(buffer), self._size - self._place)
        if length <= 0:
            return 0
        data = buckets.read_range(self._url, self._place, length)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def open_object(url: str, size: int) -> io.BufferedReader:
    """An object of a known size, to look at its header."""
    return io.BufferedReader(ObjectFile(url, size), PIECE)
