"""Photos that stand beside a benchmark's own: distractors, and training photos."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from multigrain_jax.data.bucket_paths import ADDRESSES
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import Sieve, first_names
from multigrain_jax.errors import InputError, printable

DISTRACTORS = "data.distractors"
TRAINING = "data.training"


def list_others(folder: Path | None, *, key: str, sieve: Sieve) -> list[str]:
    """The photos below a folder that may be given; none where it is not.

    Args:
        folder: with all its subfolders.
        key: the key that names it.
        sieve: what is kept out; it remembers what was passed over.

    Raises:
        InputError: no such folder, or no photos in it.
    """
    if folder is None:
        return []
    files, _ = index_folder(folder, split=None, sieve=sieve, instances=None, key=key)
    return [file.path for file in files]


def require_any(names: Sequence[str], folder: Path, *, key: str, origin: str) -> None:
    """Refuse a folder without photos.

    Args:
        names: of those that it has.
        folder: for the error, which names some of its files.
        key: the key that names it.
        origin: where the data comes from, for the error.

    Raises:
        InputError: there are none.
    """
    if not names:
        raise InputError(
            f"{key}: found none of the photos in {folder}, but {first_names(folder)}; "
            f"expected the folder that they are in: give it with --config.{key}=DIR; "
            f"nothing is downloaded, {origin}"
        )


def refuse_own(others: Sequence[str], own: Sequence[str], *, key: str) -> None:
    """Refuse other photos that are a benchmark's own, by whatever path.

    A distractor that is a query's photo is found in place of the right one, and scores
    that are normalised by what is looked for say that nothing is found.

    Args:
        others: the paths of the photos of one folder.
        own: those of queries and database.
        key: the key that names the folder.

    Raises:
        InputError: there are such ones.
    """
    if not others:
        return
    known = set(_resolved(own))
    mixed = [
        path
        for path, real in zip(others, _resolved(others), strict=True)
        if real in known
    ]
    if mixed:
        raise InputError(
            f"{key}: found {len(mixed)} of its {len(others)} photos among the "
            f"benchmark's own, the first of them {printable(mixed[0])}, expected other "
            f"photos alone; give a folder without them with --config.{key}=DIR"
        )


def _resolved(paths: Sequence[str]) -> Iterator[str]:
    """Paths without links on the way, which are equal where the file is the same.

    Folders are asked, not files: a folder's own list tells which of these are links.
    """
    folders: dict[str, tuple[str, set[str]]] = {}
    for path in paths:
        if path.startswith(ADDRESSES):
            yield path
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder), _links_in(folder)
        real, links = folders[folder]
        yield os.path.realpath(path) if name in links else os.path.join(real, name)


def _links_in(folder: str) -> set[str]:
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        return {entry.name for entry in entries if entry.is_symlink()}
    return set()  # reading its photos will say why it cannot be listed
