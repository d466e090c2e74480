"""What is kept on the local disk: copies of slow files, and lists."""

import atexit
import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multigrain_jax.buckets import is_bucket
from multigrain_jax.errors import InputError, printable
from multigrain_jax.files import PARTIAL_SUFFIX, write_atomically

# The names of copies, of the folders they are in, and of those half written.
_PART, _COPY = re.compile("[0-9a-f]{2}"), re.compile("[0-9a-f]{64}")
_ORPHAN = re.compile(r"[0-9a-f]{40}\.[0-9a-f]{16}" + re.escape(PARTIAL_SUFFIX))
_ORPHAN_S = 3600.0
# At the end of a copy is the check sum of what is before it.
_CHECK_BYTES = 4
# A cache that is full to this share is emptied to that one, oldest copies first …
_FULL, _EMPTIED_TO = 15 / 16, 7 / 8
# … and measured after such a share of what is left: sixteen processes stay below.
_SHARE_OF_ROOM = 1 / 16
_LARGEST_SHARE = 1 / 16

# Shorter lists are made faster than a kept one is checked and read.
KEPT_FROM = 10_000


class LocalCache:
    """Copies each file to a local folder when it is first read.

    A copy is of one path, size and time of change: a file that is replaced is read
    anew. Several processes may share the folder: a copy appears whole or not at all,
    and one that is damaged since is thrown away.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: float | None = None,
        compare: bool = False,
    ):
        """Use `folder`, which is created if it is missing.

        Args:
            folder: where the copies are, on this machine.
            max_bytes: the oldest copies go before all of them are larger than this;
                None: all stay.
            compare: whether every copy is held against its file, which is read too.

        Raises:
            InputError: there can be no such folder.
        """
        if is_bucket(folder):
            raise InputError(
                f"data.local_cache_dir: found {folder}, expected a folder of this "
                "machine's disk, where photos of slow places are kept; name one"
            )
        self._folder = Path(folder).absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"data.local_cache_dir: {self._folder} cannot be made "
                f"({error.strerror}), expected a folder to write to; name another place"
            ) from error
        self._max_bytes = max_bytes
        self._compare = compare
        # What may be written before the folder is measured again: nothing is known yet.
        self._room = 0.0
        self._swept: set[str] = set()

    def read(self, path: Path) -> bytes:
        """The file's bytes, from its copy if there is one; OSError as of the file."""
        status = path.stat()
        place = os.fsencode(path.absolute())

        def read() -> tuple[bytes, bool]:
            with path.open("rb") as file:
                data = file.read()
                after = os.fstat(file.fileno())
            # One that changes while it is read is not kept.
            unchanged = after.st_mtime_ns == status.st_mtime_ns
            return data, unchanged and after.st_size == status.st_size

        return self._read(place, status.st_size, status.st_mtime_ns, read)

    def read_object(
        self, url: str, *, size: int, version: int, read: Callable[[], bytes]
    ) -> bytes:
        """The bytes of an object of a bucket, from its copy if there is one.

        Args:
            url: its address.
            size: of its content.
            version: which writing of the object it is.
            read: reads it.
        """
        return self._read(url.encode(), size, version, lambda: (read(), True))

    def _read(
        self,
        place: bytes,
        size: int,
        version: int,
        read: Callable[[], tuple[bytes, bool]],
    ) -> bytes:
        """The bytes of what is at a place; `read` also says whether to keep them."""
        copy = self._copy_of(place, size, version)
        kept = _read_copy(copy, size)
        if kept is not None and not self._compare:
            return kept
        data, is_sure = read()
        if kept == data:
            return data
        if kept is not None:
            print(
                f"{printable(os.fsdecode(place))}: the local copy was of another "
                "content, and is made anew",
                flush=True,
            )
        if is_sure and size == len(data):
            # A full or read-only cache disk makes reading slower, never wrong.
            with contextlib.suppress(OSError):
                self._keep(copy, data)
        return data

    def _copy_of(self, place: bytes, size: int, version: int) -> Path:
        """Where the copy of a file in one state is."""
        key = place + f"\0{size}\0{version}".encode()
        name = hashlib.sha256(key).hexdigest()
        return self._folder / name[:2] / name

    def _keep(self, copy: Path, data: bytes) -> None:
        if copy.parent.name not in self._swept:
            self._swept.add(copy.parent.name)
            _remove_orphans(copy.parent)
        if self._max_bytes is not None:
            if len(data) > self._max_bytes * _LARGEST_SHARE:
                return
            if len(data) > self._room:
                self._room = make_room(self._folder, self._max_bytes)
            self._room -= len(data)
        write_whole(copy, data + _check_sum(data))


def make_room(folder: Path, max_bytes: float) -> float:
    """Remove the oldest copies of a folder until it is well below a size.

    What is no copy stays, and does not count.

    Returns:
        How many bytes one process may write until this has to be done again: a share
        of what is left, since others may write too.
    """
    found = []
    for part in folder.iterdir():
        if not _PART.fullmatch(part.name) or not part.is_dir():
            continue
        for entry in os.scandir(part):
            with contextlib.suppress(FileNotFoundError):
                if _COPY.fullmatch(entry.name):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total > max_bytes * _FULL:
        for _, size, path in sorted(found):
            if total <= max_bytes * _EMPTIED_TO:
                break
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                os.unlink(path)
            total -= size
    return max(max_bytes - total, 0) * _SHARE_OF_ROOM


def _read_copy(copy: Path, size: int) -> bytes | None:
    """What a copy holds; None if there is none, or it is damaged, and then it goes."""
    try:
        sealed = copy.read_bytes()
    except OSError:
        return None
    data, check_sum = sealed[:-_CHECK_BYTES], sealed[-_CHECK_BYTES:]
    if len(data) == size and check_sum == _check_sum(data):
        return data
    with contextlib.suppress(OSError):
        copy.unlink()
    return None


def _check_sum(data: bytes) -> bytes:
    """Against damage, not against intent."""
    return zlib.crc32(data).to_bytes(_CHECK_BYTES, "little")


def _remove_orphans(part: Path) -> None:
    """Remove what killed processes have left half written, an hour ago or more."""
    with contextlib.suppress(FileNotFoundError):
        for name in filter(_ORPHAN.fullmatch, os.listdir(part)):
            if time.time() - (part / name).stat().st_mtime > _ORPHAN_S:
                (part / name).unlink()


def cache_folder(kind: str) -> Path:
    """Where one kind of thing is kept between runs: below the user's cache folder.

    MULTIGRAIN_CACHE names another folder for all kinds.
    """
    own = os.environ.get("MULTIGRAIN_CACHE")
    if own:
        return Path(os.path.expanduser(own)).absolute() / kind
    home = os.environ.get("XDG_CACHE_HOME") or _home_cache()
    return Path(home) / "multigrain_jax" / kind


def _home_cache() -> Path:
    """`~/.cache`, or for a user without a home a folder that goes with the process."""
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return _folder_of_process()


@functools.cache
def _folder_of_process() -> Path:
    # Not a known name below /tmp, which anybody may have made before.
    folder = tempfile.mkdtemp(prefix="multigrain_jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    print(
        "this user has no home: what is kept between runs is kept for this one; "
        "name a folder by MULTIGRAIN_CACHE",
        flush=True,
    )
    return Path(folder)


def kept_labels(
    key: tuple[str, ...], count: int, read: Callable[[], np.ndarray]
) -> np.ndarray:
    """Labels that take long to read: from the user's cache folder, or read and kept.

    Fewer than `KEPT_FROM` are read each time.

    Args:
        key: what tells this data set from others; its first part is shown.
        count: how many labels there are.
        read: reads them, int32 [count].
    """
    if count < KEPT_FROM:
        return read()
    name = hashlib.sha256(repr(key).encode()).hexdigest()
    path = cache_folder("labels") / f"{name}.npy"
    try:
        labels = np.load(path)
        if labels.shape == (count,):
            return labels
    except (OSError, ValueError, EOFError):
        pass  # not kept yet, or damaged
    print(f"reading the {count} labels of {key[0]} once …")
    labels = read()
    encoded = io.BytesIO()
    np.save(encoded, labels)
    try:
        write_whole(path, encoded.getvalue())
    except OSError:
        print(f"the labels of {key[0]} could not be kept in {path}")
    return labels


def write_whole(path: Path, data: bytes) -> None:
    """Write a file by `write_atomically`, and the folder for it if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        file.write(data)
