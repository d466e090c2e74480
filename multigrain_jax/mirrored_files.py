"""What of a folder goes to a bucket, in which order, and how it is held still.

Files that are being written do not count yet, and lock files never do.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.files import PARTIAL_SUFFIX, escape_name, unescape_name
from multigrain_jax.lock import LOCK_FILE

# What is made anew where it is missing.
CACHE = "thumbnails"
# What stands for a folder with nothing in it.
EMPTY = ".empty"
# Whole files of these names say which others count.
_HEADS = re.compile(
    r"(?:.*/)?descriptors\.json|index/index\.json"
    r"|(?:[^/]*checkpoints[^/]*/[^/]+/)?meta/metadata"
)
_UNFINISHED = ".orbax-checkpoint-tmp"
_STEP_FOLDER = re.compile(r"(?P<step>checkpoints[^/]*/[0-9]+)/")
_HEAD_OF_STEP = "meta/metadata"


class FileState(NamedTuple):
    """What a file is told by that nobody has written to."""

    size: int
    mtime_ns: int
    inode: int


class Staged(NamedTuple):
    """One file as it was at one moment."""

    name: str
    link: Path | None  # None: an empty folder
    file: FileState


def is_head(name: str) -> bool:
    """Whether an object says which others count, and so is written after them."""
    return _HEADS.fullmatch(name) is not None


def unfinished(names: Sequence[str]) -> set[str]:
    """Of the names of objects of a workdir, those of checkpoints that are not whole.

    Their last object is missing: an upload or a deletion was cut short.
    """
    steps = {n: found["step"] for n in names if (found := _STEP_FOLDER.match(n))}
    whole = {step for n, step in steps.items() if n == f"{step}/{_HEAD_OF_STEP}"}
    return {name for name, step in steps.items() if step not in whole}


def found_files(folder: Path) -> list[tuple[str, Path]]:
    """All that is mirrored of a folder: names of objects, and their files.

    A folder with nothing in it counts as one file in it, `EMPTY`.
    """
    found: list[tuple[str, Path]] = []

    def walk(place: Path, prefix: str) -> None:
        before = len(found)
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + escape_name(entry.name)
                if _stays(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    walk(Path(entry.path), f"{name}/")
                elif entry.is_file():
                    found.append((name, Path(entry.path)))
        if len(found) == before and prefix:
            found.append((prefix + EMPTY, place))

    walk(folder, "")
    return found


def _stays(name: str) -> bool:
    """Whether a file or folder is of this machine alone."""
    is_partial = name.endswith(PARTIAL_SUFFIX) or _UNFINISHED in name
    return name == CACHE or name.rpartition("/")[2] == LOCK_FILE or is_partial


def is_of_a_mirror(name: str) -> bool:
    """Whether a mirror may have written an object: if not, it is somebody else's.

    Of all others the file, as `unescape_name` tells it, is in the folder, and
    `found_files` has it by this name.
    """
    parts = name.split("/")
    if {"", ".", ".."}.intersection(parts) or "\0" in name:
        return False
    if any(escape_name(unescape_name(part)) != part for part in parts):
        return False
    return not any(_stays("/".join(parts[: n + 1])) for n in range(len(parts)))


def file_state(path: Path) -> FileState:
    """What a file is now; an empty folder is always the same."""
    if path.is_dir():
        return FileState(0, 0, 0)
    found = path.stat()
    return FileState(found.st_size, found.st_mtime_ns, found.st_ino)


def stage(name: str, path: Path, link: Path) -> Staged:
    """Keep a file as it is now, whatever is moved into its place or deletes it.

    Args:
        name: the object's.
        path: the file, or an empty folder.
        link: a name for it on the same disk.
    """
    if path.is_dir():
        return Staged(name, None, file_state(path))
    try:
        os.link(path, link, follow_symlinks=True)
        return Staged(name, link, file_state(link))
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        before = file_state(path)
        shutil.copy2(path, link)
        return Staged(name, link, before)
