"""The files of a collection, read by row: nothing outside of its folders is."""

import contextlib
import io
import os
import stat
from collections.abc import Callable, Generator

from multigrain_jax.browse.collection import Collection
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.descriptors.roots import is_below


class PhotoGoneError(OSError):
    """The photo is not there any more."""


class PhotoRefusedError(OSError):
    """The file is not one that may be shown."""


class PhotoFiles:
    """Reads photos of a collection, and refuses what `embed` cannot have read there."""

    def __init__(
        self,
        collection: Collection,
        *,
        open_source: Callable[[], ImageSource | None],
        max_bytes: int,
    ):
        """Open nothing yet.

        Args:
            collection: whose photos are read.
            open_source: opens the data set that photos without a file are in.
            max_bytes: a larger file is no photo.
        """
        self._collection = collection
        self._open_source = open_source
        self._max_bytes = max_bytes
        self._numbers: dict[str, int] | None = None
        self._source: ImageSource | None = None
        self._real_roots = [os.path.realpath(root) for root in collection.roots]
        # Where links out of the roots have led when they were first followed.
        self._followed: dict[int, str] = {}

    def read(self, row: int) -> bytes:
        """The encoded bytes of a photo.

        Raises:
            PhotoGoneError: it is not there, or cannot be read.
            PhotoRefusedError: it is not what was embedded, or too large.
        """
        with self.opened(row) as file:
            try:
                return file.read(self._max_bytes)
            except OSError as error:
                raise _gone(error) from error

    def stamp(self, row: int) -> ImageStamp:
        """The file of a photo as it is now, without reading it; errors as of `read`."""
        if not self._collection.has(row):
            raise PhotoGoneError(f"there is no photo of row {row}")
        known = self._collection.stamp(row)
        if not os.path.isabs(known.path):
            return known
        with self.opened(row) as file:
            found = os.fstat(file.fileno())
        return known._replace(size=found.st_size, mtime_ns=found.st_mtime_ns)

    @contextlib.contextmanager
    def opened(self, row: int) -> Generator[io.BufferedReader | io.BytesIO]:
        """A photo's encoded bytes as an open file; errors as of `read`."""
        if not self._collection.has(row):
            raise PhotoGoneError(f"there is no photo of row {row}")
        if not os.path.isabs(self._collection.path(row)):
            yield io.BytesIO(self._read_of_source(row))
            return
        try:
            descriptor = self._open(row)
        except (PhotoGoneError, PhotoRefusedError):
            raise
        except (OSError, ValueError) as error:
            raise _gone(error) from error
        with open(descriptor, "rb") as file:
            yield file

    def is_unchanged(self, row: int) -> bool:
        """Whether a row's file is as it was embedded, and may be moved.

        A link may not, and neither may what a link of the collection leads to.
        """
        try:
            path, size, mtime_ns = self._collection.stamp(row)
            os.close(self._open(row))
            found = os.lstat(path)
            is_inside = _below_any(os.path.realpath(path), self._real_roots)
        except (OSError, ValueError, KeyError):
            return False
        is_same = (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
        return stat.S_ISREG(found.st_mode) and is_same and is_inside

    def _open(self, row: int) -> int:
        """A descriptor of the row's file, every condition checked."""
        path, size, mtime_ns = self._collection.stamp(row)
        is_plain = os.path.normpath(path) == path
        if not is_plain or not _below_any(path, self._collection.roots):
            raise PhotoRefusedError("it is outside of the collection's folders")
        real = os.path.realpath(path, strict=True)
        # Neither a pipe nor a link that was put there just now is waited for.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(real, flags)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise PhotoRefusedError("it is not a file")
            if found.st_size > self._max_bytes:
                raise PhotoRefusedError("it is too large to be a photo")
            if not _below_any(real, self._real_roots):
                followed = self._followed.setdefault(row, real)
                is_same = (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
                if followed != real or not is_same:
                    raise PhotoRefusedError(
                        "it is a link out of the collection's folders, and leads to "
                        "another file than the one that was embedded"
                    )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _read_of_source(self, row: int) -> bytes:
        if self._numbers is None:
            self._source = self._open_source()
            count = 0 if self._source is None else len(self._source)
            self._numbers = {}
            for number in range(count):
                assert self._source is not None
                self._numbers.setdefault(self._source.describe(number), number)
        number = self._numbers.get(self._collection.path(row))
        if self._source is None or number is None:
            raise PhotoGoneError("its data set does not have it any more")
        return self._source.read(number)


def _below_any(path: str, roots: tuple[str, ...] | list[str]) -> bool:
    return any(is_below(path, root) for root in roots)


def _gone(error: Exception) -> PhotoGoneError:
    return PhotoGoneError(getattr(error, "strerror", None) or "it cannot be read")
