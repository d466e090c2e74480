"""Thumbnails of a collection: made when they are first asked for, kept in a folder."""

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from multigrain_jax.browse.photo_files import PhotoFiles
from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.files import write_atomically

SIDE = 320  # pixels, the longer side
# Once the folder is full, so much of it is freed at once, the longest unused first.
FREED_SHARE = 0.2
# What this module writes; anything else in the folder is left alone.
OWN_FILE = re.compile(r"[0-9a-f]{38}\.jpg")


class ThumbnailCache:
    """A folder of JPEG files that stays below a size."""

    def __init__(self, folder: Path, *, max_bytes: float):
        """Look at what the folder holds.

        Args:
            folder: made if it is missing.
            max_bytes: of all files together.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())

    def get(self, key: str) -> bytes | None:
        """What is kept by a key, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep something, where there is room; a full disk keeps nothing."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            with write_atomically(path) as file:
                file.write(data)
            with self._lock:
                self._bytes += len(data)
                if self._bytes > self._max_bytes:
                    self._free()

    def _free(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= (1 - FREED_SHARE) * self._max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
        self._bytes = total

    def _files(self) -> list[tuple[int, int, Path]]:
        """When each file was last used, its size, and its path."""
        found = []
        for path in self._folder.glob("??/*"):
            if not OWN_FILE.fullmatch(path.name):
                continue
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.jpg"


class Thumbnails:
    """Makes thumbnails of photos by their rows."""

    def __init__(
        self,
        files: PhotoFiles,
        cache: ThumbnailCache,
        *,
        decode: Callable[[bytes], bytes],
    ):
        """Take what is needed.

        Args:
            files: reads the photos.
            cache: keeps the thumbnails.
            decode: makes an encoded photo a JPEG file of at most `SIDE` pixels.
        """
        self._files = files
        self._cache = cache
        self._decode = decode

    def key(self, row: int) -> str:
        """What tells a photo, and the form that its file has now, from all others.

        Raises:
            PhotoGoneError, PhotoRefusedError: as of `PhotoFiles.read`.
        """
        # Also where there is a thumbnail: what may not be shown is not shown small.
        return _key(self._files.stamp(row))

    def get(self, row: int, key: str) -> bytes:
        """The thumbnail as a JPEG file.

        Args:
            row: of the photo.
            key: from `key`.

        Raises:
            PhotoGoneError, PhotoRefusedError: as of `PhotoFiles.read`.
            UndecodableImageError: the file is no photo any more.
        """
        data = self._cache.get(key)
        if data is None:
            data = self._decode(self._files.read(row))
            self._cache.put(key, data)
        return data


def _key(stamp: ImageStamp) -> str:
    text = f"{stamp.path}\n{stamp.size}\n{stamp.mtime_ns}\n{SIDE}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]
