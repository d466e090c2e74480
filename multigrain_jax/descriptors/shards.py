"""The shards of a folder of descriptors: .npy files whose content is known."""

import hashlib
from pathlib import Path
from typing import IO

import numpy as np

from multigrain_jax.descriptors.folder import DescriptorSettings, Shard
from multigrain_jax.errors import InputError
from multigrain_jax.files import file_digest, require_content


class ShardFile:
    """A shard on disk, whose digest is compared when it is first read.

    Attributes:
        shape: (n, D).
        dtype: of the descriptors.
    """

    def __init__(
        self,
        path: Path,
        known: Shard | None = None,
        settings: DescriptorSettings | None = None,
    ):
        """Look at the file's size, or where nothing is known of it at its header.

        Args:
            path: the file.
            known: what it holds; None is not known.
            settings: of the folder; needed where `known` is given.

        Raises:
            InputError: no such file, one of another size, or no array.
        """
        self._path = path
        self._known = known
        if known is not None and settings is not None:
            if reason := size_problem(path, known):
                raise self._damaged(reason)
            self.shape = (known.rows, settings.dim)
            self.dtype = np.dtype(settings.dtype)
            return
        array = self._load()
        self.shape, self.dtype = array.shape, array.dtype

    def open(self) -> np.ndarray:
        """The descriptors [n, D], mapped; they count as memory once they are read.

        Raises:
            InputError: they are not what was written.
        """
        self.verify()
        return self._load()

    def verify(self) -> None:
        """Compare the digest, where it is known and was not compared before.

        Raises:
            InputError: it is another one.
        """
        if self._known is not None:
            if reason := shard_problem(self._path, self._known):
                raise self._damaged(reason)
            self._known = None

    def trust(self) -> None:
        """Read it without a look at its digest, which was compared elsewhere."""
        self._known = None

    def _load(self) -> np.ndarray:
        try:
            require_content(self._path)
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(_in_short(error)) from error
        if not isinstance(array, np.ndarray) or array.ndim != 2:
            raise self._damaged("no matrix of descriptors")
        return array

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"{self._path}: {reason}; run `embed` there again, which says whose "
            "descriptors were in it and makes them anew"
        )


class HashingFile:
    """A file to write to that keeps size and SHA-256 of what it was given."""

    def __init__(self, file: IO[bytes]):
        """Pass on to `file`."""
        self._file = file
        self._sha = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write and remember."""
        self._sha.update(data)
        self.size += memoryview(data).nbytes
        return self._file.write(data)

    def digest(self) -> str:
        """Of everything so far, in hexadecimal."""
        return self._sha.hexdigest()


def shard_problem(path: Path, known: Shard) -> str | None:
    """Why a file is not the shard that was written; None where it is. Reads it all."""
    if reason := size_problem(path, known):
        return reason
    try:
        if file_digest(path) != known.digest:
            return "its content has changed since it was written"
    except OSError as error:
        return _in_short(error)
    return None


def unknown_shard(path: Path, settings: DescriptorSettings) -> Shard | str:
    """What a shard holds of which nothing is known yet, or why it is none."""
    try:
        array = ShardFile(path).open()
        if array.shape[1] != settings.dim or array.dtype != settings.dtype:
            return f"{array.dtype} of width {array.shape[1]}"
        return Shard(len(array), path.stat().st_size, file_digest(path))
    except InputError as error:
        return _in_short(error.__cause__ or error)
    except OSError as error:
        return _in_short(error)


def size_problem(path: Path, known: Shard) -> str | None:
    """Why a file cannot be the shard that was written, by its size alone."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return _in_short(error)
    if size != known.bytes:
        return f"{size} bytes found, {known.bytes} expected"
    return None


def _in_short(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
