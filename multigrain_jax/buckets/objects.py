"""Objects of a bucket, whole or a part: read, listed, written, deleted.

Every request is tried again for a while where the storage is busy, fails or does not
answer (429, 5xx, time-outs, connections that are dropped), and never without bound.

The libraries are the storages' own (`google-cloud-storage`, `botocore`), not `fsspec`
and not `etils.epath` on top of it: those cannot write under a precondition everywhere,
and their thread does not survive a fork, which the processes that read photos may be.
`epath` takes TensorFlow's file API where TensorFlow is installed. They are imported
when the first address of their kind is used.
"""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from multigrain_jax.buckets import gcs, s3
from multigrain_jax.buckets.paths import Address, split
from multigrain_jax.buckets.retry import persist
from multigrain_jax.buckets.storage import (
    ObjectChangedError,
    Status,
    Storage,
    all_pages,
)
from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically

_BLOCK = 1 << 20
_STORAGES: dict[str, Storage] = {"gs": gcs.GoogleStorage(), "s3": s3.AmazonStorage()}


def read_bytes(path: str, *, generation: str | None = None) -> bytes:
    """The bytes of an object.

    Args:
        path: its address.
        generation: read this one, and no other that has taken its place.

    Raises:
        FileNotFoundError: it is not there.
        ObjectChangedError: it is of another generation.
        PermissionError: this user may not read it.
        InputError: there is no such bucket, or the library is missing.
        OSError: no answer, for a minute.
    """
    storage, at = _object(path)
    return persist(lambda _: storage.read(at, 0, None, generation), str(at))


def read_range(
    path: str, start: int, length: int, *, generation: str | None = None
) -> bytes:
    """`length` bytes of an object from `start` on; fewer at its end.

    Errors as of `read_bytes`.
    """
    storage, at = _object(path)
    return persist(lambda _: storage.read(at, start, length, generation), str(at))


def stat(path: str) -> Status:
    """What is known of an object without reading it; errors as of `read_bytes`."""
    storage, at = _object(path)
    return persist(lambda _: storage.status(at), str(at))


def exists(path: str) -> bool:
    """Whether there is an object of this name; errors as of `read_bytes`."""
    try:
        stat(path)
    except FileNotFoundError:
        return False
    return True


def list_objects(prefix: str) -> Iterator[Status]:
    """All objects below an address, as below a folder; in the order of their names.

    What consoles make in place of empty folders (names that end with a slash) is left
    out. Errors as of `read_bytes`; where there is nothing, nothing comes.

    Args:
        prefix: an address, or a bucket.
    """
    at = split(prefix)
    storage = _STORAGES[at.scheme]

    def page(token: str | None) -> tuple[list[Status], str | None]:
        return persist(lambda _: storage.page(at, token), str(at))

    return (found for found in all_pages(page) if not found.path.endswith("/"))


def write_bytes(path: str, data: bytes, *, if_generation: str | None = None) -> str:
    """Write an object, whole: whoever reads it finds the old one or the new one.

    Args:
        path: its address.
        data: what it will hold.
        if_generation: write only in place of this generation; `buckets.ABSENT`: only
            if there is none yet.

    Returns:
        Its generation.

    Raises:
        ObjectChangedError: the condition does not hold; nothing was written.
        PermissionError: this user may not write it.
        InputError: there is no such bucket, or the library is missing.
        OSError: no answer, for a minute: it may be written or not.
    """
    return _write(path, io.BytesIO(data), len(data), if_generation)


def upload(
    local: Path, path: str, *, size: int | None = None, if_generation: str | None = None
) -> str:
    """Write an object from a file, as `write_bytes` does.

    Args:
        local: the file.
        path: the object's address.
        size: how many of its first bytes, where it may grow; None: all.
        if_generation: as of `write_bytes`.

    Returns:
        Its generation.
    """
    with local.open("rb") as file:
        there = os.fstat(file.fileno()).st_size
        size = there if size is None else size
        if there < size:
            raise OSError(errno.EIO, f"{there} bytes, expected {size}", str(local))
        return _write(path, file, size, if_generation)


def download(path: str, local: Path, *, generation: str | None = None) -> None:
    """Write an object's bytes to a file, which appears whole or not at all.

    Errors as of `read_bytes`, and those of the disk.

    Args:
        path: its address.
        local: the file; folders above it are made.
        generation: as of `read_bytes`.
    """
    storage, at = _object(path)
    local.parent.mkdir(parents=True, exist_ok=True)

    def fetch(_: bool) -> None:
        with write_atomically(local) as file:
            storage.fetch(at, file, generation)

    persist(fetch, str(at))


def delete(path: str, *, if_generation: str | None = None) -> None:
    """Delete an object; one that is not there is no error.

    Args:
        path: its address.
        if_generation: only if it is of this generation.

    Raises:
        ObjectChangedError: the condition does not hold.
    """
    storage, at = _object(path)

    def call(_: bool) -> None:
        try:
            storage.delete(at, if_generation)
        except FileNotFoundError:
            return
        except ObjectChangedError:
            with contextlib.suppress(FileNotFoundError):
                storage.status(at)
                raise
            # Gone already, perhaps by a try whose answer was lost.

    persist(call, str(at))


def disconnect() -> None:
    """Close the connections of this process; the next request makes new ones."""
    gcs.connections.close()
    s3.connections.close()


def _object(path: str) -> tuple[Storage, Address]:
    at = split(path)
    if not at.key:
        raise InputError(
            f"{at}: found a bucket, expected something in it ({at}/NAME); add a name"
        )
    return _STORAGES[at.scheme], at


def _write(path: str, file: IO[bytes], size: int, if_generation: str | None) -> str:
    storage, at = _object(path)

    def call(again: bool) -> str:
        file.seek(0)
        try:
            first = cast(IO[bytes], _First(file, size))
            return storage.write(at, first, size, if_generation)
        except ObjectChangedError:
            # Perhaps by an earlier try of this very write, whose answer was lost.
            with contextlib.suppress(FileNotFoundError):
                there = storage.status(at) if again else None
                if there is not None and there.md5 == _md5(file, size):
                    return there.generation
            raise

    return persist(call, str(at))


def _md5(file: IO[bytes], size: int) -> str:
    file.seek(0)
    first, digest = _First(file, size), hashlib.md5(usedforsecurity=False)
    while block := first.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


class _First(io.RawIOBase):
    """The first bytes of a file, which may grow meanwhile."""

    def __init__(self, file: IO[bytes], size: int):
        self._file, self._size = file, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if size is None or size < 0 else min(size, left))
