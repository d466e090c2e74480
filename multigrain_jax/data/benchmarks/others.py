"""Photos that stand beside a benchmark's own: distractors, and training photos."""

from collections.abc import Sequence
from pathlib import Path

from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import Sieve, first_names
from multigrain_jax.errors import InputError

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


def require_folder(folder: Path, *, key: str, origin: str) -> None:
    """Refuse what is no folder.

    Args:
        folder: of photos.
        key: the key that names it.
        origin: where the data comes from, for the error.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{key}: {folder} was expected to be a folder, found "
            f"{'a file' if folder.exists() else 'nothing'}; give it with "
            f"--config.{key}=DIR; nothing is downloaded, {origin}"
        )


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
