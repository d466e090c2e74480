"""Images that are files of a disk, or objects of a bucket."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from multigrain_jax import buckets
from multigrain_jax.data.bucket_paths import ADDRESSES, open_object
from multigrain_jax.data.bucket_tree import Stamp, listed_stamp, stamp_of
from multigrain_jax.data.cache import LocalCache
from multigrain_jax.data.decoding import Decoding
from multigrain_jax.data.read_ahead import ReadAhead
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.instances import number_instances
from multigrain_jax.data.sources.source import ImageSource

NOT_KNOWN = -1


class FileSource(ImageSource):
    """Images that are files on disk, or objects of a bucket."""

    def __init__(
        self,
        files: Sequence[ImageFile],
        *,
        class_names: Sequence[str],
        decoding: Decoding,
        remarks: Sequence[str] = (),
        local_cache_dir: str | Path | LocalCache | None,
    ):
        """Take the files as they are listed.

        Args:
            files: path, label and instance of each image.
            class_names: the name of each label.
            decoding: how they become pixels.
            remarks: lines about what was passed over when they were listed.
            local_cache_dir: each file is copied here when it is first read: a folder,
                or a cache that has a bound; None: not.
        """
        self._paths = [str(file.path) for file in files]
        self._stamps = _bucket_stamps(self._paths)
        self._cache = _as_cache(local_cache_dir)
        self.labels = np.array([file.label for file in files], np.int32)
        self.class_names = list(class_names)
        self.decoding = decoding
        self.remarks = tuple(remarks)
        self.instances = number_instances([file.instance for file in files])

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> bytes:
        """The file's bytes; OSError if it cannot be read."""
        text = self._paths[index]
        if self._stamps is not None and text.startswith(ADDRESSES):
            return self._ahead.take(index)
        path = Path(text)
        require_readable(path, max_bytes=self.decoding.max_bytes)
        return self._cache.read(path) if self._cache else path.read_bytes()

    def ask_for(self, indices: Iterable[int]) -> None:
        """Begin to read those that are in a bucket."""
        if self._stamps is not None:
            in_bucket = (n for n in indices if self._paths[n].startswith(ADDRESSES))
            self._ahead.ask(in_bucket)

    @cached_property
    def _ahead(self) -> ReadAhead:
        stamps = self._stamps
        assert stamps is not None
        return ReadAhead(self._read_object, lambda index: max(0, int(stamps[index, 0])))

    def __getstate__(self) -> dict[str, Any]:
        # Each process has its own threads.
        return {k: v for k, v in self.__dict__.items() if k != "_ahead"}

    def _read_object(self, index: int) -> bytes:
        url = self._paths[index]
        size, version = self._object_stamp(index, url)
        _require_size(size, max_bytes=self.decoding.max_bytes)
        if self._cache is None:
            return buckets.read_bytes(url)
        return self._cache.read_object(
            url, size=size, version=version, read=lambda: buckets.read_bytes(url)
        )

    def _object_stamp(self, index: int, url: str) -> Stamp:
        """As it was listed; what was not among it is asked for."""
        assert self._stamps is not None
        size, version = self._stamps[index].tolist()
        return (
            stamp_of(buckets.stat(url)) if size == NOT_KNOWN else Stamp(size, version)
        )

    def stamp(self, index: int) -> Stamp | None:
        """Size and time of change of one file, or version of one object."""
        if self._stamps is None or not self._paths[index].startswith(ADDRESSES):
            return super().stamp(index)
        try:
            return self._object_stamp(index, self._paths[index])
        except OSError:
            return None

    def open(self, index: int) -> BinaryIO:
        """The file, open; OSError if it cannot be read."""
        if self._cache:
            return super().open(index)
        text = self._paths[index]
        if self._stamps is not None and text.startswith(ADDRESSES):
            size, _ = self._object_stamp(index, text)
            _require_size(size, max_bytes=self.decoding.max_bytes)
            return open_object(text, size)
        require_readable(Path(text), max_bytes=self.decoding.max_bytes)
        return open(text, "rb")

    def describe(self, index: int) -> str:
        """The file's path."""
        return self._paths[index]


def _as_cache(given: str | Path | LocalCache | None) -> LocalCache | None:
    if isinstance(given, LocalCache):
        return given
    return LocalCache(given) if given else None


def require_readable(path: Path, *, max_bytes: int) -> None:
    """Raise OSError for a file that is not there, or is too large to be a photo."""
    _require_size(path.stat().st_size, max_bytes=max_bytes)


def _require_size(size: int, *, max_bytes: int) -> None:
    if size > max_bytes:
        raise OSError(
            f"{size} bytes, more than the limit of {max_bytes} that follows "
            "from data.max_megapixels"
        )


def _bucket_stamps(paths: Sequence[str]) -> np.ndarray | None:
    """Size and version of each object as it was listed, int64 [N, 2].

    `NOT_KNOWN` is what was not among the listed ones; None: none is in a bucket.
    """
    if not any(path.startswith(ADDRESSES) for path in paths):
        return None
    stamps = np.full((len(paths), 2), NOT_KNOWN, np.int64)
    for index, path in enumerate(paths):
        if path.startswith(ADDRESSES) and (stamp := listed_stamp(path)):
            stamps[index] = stamp
    return stamps
