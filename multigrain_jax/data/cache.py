"""What is kept on the local disk: copies of slow files, and lists."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multigrain_jax.files import write_atomically

# Shorter lists are made faster than a kept one is checked and read.
KEPT_FROM = 10_000


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
        name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
        copy = self._folder / name[:2] / name
        with contextlib.suppress(OSError):
            return copy.read_bytes()
        data = path.read_bytes()
        # A full or read-only cache disk makes reading slower, never wrong.
        with contextlib.suppress(OSError):
            write_whole(copy, data)
        return data


def cache_folder(kind: str) -> Path:
    """Where one kind of thing is kept between runs: below the user's cache folder.

    MULTIGRAIN_CACHE names another folder for all kinds.
    """
    own = os.environ.get("MULTIGRAIN_CACHE")
    if own:
        return Path(own).expanduser().absolute() / kind
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "multigrain_jax" / kind


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
