"""What is kept on the local disk: copies of slow files, and lists."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path


class LocalCache:
    """Copies each file to a local folder when it is first read.

    Several processes may share the folder: a copy appears whole or not at all.
    """

    def __init__(self, folder: str | Path):
        """Use `folder`, which is created if it is missing."""
        self._folder = Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, path: Path) -> bytes:
        """The file's bytes, from its copy if there is one."""
        name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()
        copy = self._folder / name[:2] / name
        with contextlib.suppress(OSError):
            return copy.read_bytes()
        data = path.read_bytes()
        # A full or read-only cache disk makes reading slower, never wrong.
        with contextlib.suppress(OSError):
            write_whole(copy, data)
        return data


def cache_folder(kind: str) -> Path:
    """Where lists of one kind are kept between runs: below the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "multigrain_jax" / kind


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; OSError if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise
