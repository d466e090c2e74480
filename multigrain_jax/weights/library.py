"""Published weights by name: downloaded when first asked for, converted, and kept."""

import difflib
import os
import secrets
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multigrain_jax.buckets import is_bucket
from multigrain_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    load_checkpoint,
    require_no_checkpoints,
)
from multigrain_jax.data.bucket_paths import as_path, local_path
from multigrain_jax.data.cache import cache_folder
from multigrain_jax.errors import InputError
from multigrain_jax.files import PARTIAL_SUFFIX
from multigrain_jax.lock import wait_for_turn
from multigrain_jax.weights.download import DownloadError, download
from multigrain_jax.weights.table import PUBLISHED, PublishedWeights

CACHE_KIND = "weights"
DOWNLOADS = "downloads"


def names() -> tuple[str, ...]:
    """The names of published weights, in the order of the table."""
    return tuple(PUBLISHED)


def is_name(text: str | Path) -> bool:
    """Whether this names published weights: no path is one, nor what exists here."""
    return os.fspath(text) in PUBLISHED and _may_be_name(text)


def find_weights(text: str | Path, *, trusted: Sequence[str] = ()) -> Path:
    """Where a checkpoint is: the path as it is, or where the weights of a name are.

    Weights that are asked for by name for the first time are downloaded, checked,
    converted, verified and kept in the cache folder (`data.cache.cache_folder`). No
    path ever leads to a download.

    Args:
        text: a path, of a bucket too, or one of `names()`; what exists is a path, and
            so is everything with a separator in it.
        trusted: how addresses begin that may do without HTTPS.

    Raises:
        InputError: neither there nor a name (the nearest are given); or the weights
            could not be had (the message says how to fetch the file by hand).
    """
    if not _may_be_name(text):
        return as_path(text) if is_bucket(text) else Path(text)
    name = os.fspath(text)
    if name not in PUBLISHED:
        raise InputError(
            f"checkpoint: {Path(name).absolute()} is not there, and no published "
            f"weights are named {name!r}{_near(name)}; give a workdir that holds "
            "checkpoints/<step>, such a step folder, or one of the names "
            f"{', '.join(PUBLISHED)}"
        )
    return _kept(name, trusted)


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, PUBLISHED, n=3, cutoff=0.5)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def keep_weights(name: str, destination: str | Path | None = None) -> Path:
    """`find_weights` of a name, and a copy of the checkpoint where one is wanted.

    Args:
        name: one of `names()`, or what should be.
        destination: a new workdir; None is the place in the cache folder.

    Returns:
        The workdir with the checkpoint.

    Raises:
        InputError: as `find_weights`; or a path, or a destination with checkpoints.
    """
    if not _may_be_name(name):
        raise InputError(
            f"{name}: found no destination, expected a new workdir for what is "
            "converted from a file; only published weights, by name, need none"
        )
    if name not in PUBLISHED:
        raise InputError(
            f"{name}: no file, and no published weights are named so{_near(name)}; "
            "give a weight file that is there, with a new workdir for what is "
            "converted, or a name: multigrain weights lists them"
        )
    if destination is None:
        return find_weights(name)
    destination = local_path(destination, what="the new workdir").absolute()
    require_no_checkpoints(destination)
    shutil.copytree(find_weights(name), destination, dirs_exist_ok=True)
    return destination


def _may_be_name(text: str | Path) -> bool:
    plain = os.fspath(text)
    separators = [mark for mark in (os.sep, os.altsep, "/") if mark]
    has_separator = any(mark in plain for mark in separators)
    return not has_separator and not Path(os.path.expanduser(plain)).exists()


def _kept(name: str, trusted: Sequence[str]) -> Path:
    """Where the weights are kept, after they were fetched if they were not there."""
    kept = cache_folder(CACHE_KIND) / name
    if (kept / CHECKPOINTS_FOLDER).is_dir():
        return kept
    with _usable(kept.parent), wait_for_turn(_lock_of(kept), purpose=name):
        if (kept / CHECKPOINTS_FOLDER).is_dir():
            return kept  # whoever was waited for has fetched them
        for left in kept.parent.glob(f"{name}.*{PARTIAL_SUFFIX}"):
            shutil.rmtree(left)  # of a process that was killed
        fresh = kept.with_name(f"{name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
        _fetch_and_convert(name, fresh, trusted)
        fresh.replace(kept)
    print(f"{name}: kept in {kept}", flush=True)
    return kept


def _lock_of(kept: Path) -> Path:
    return kept.with_name(f".{kept.name}.lock")


@contextmanager
def _usable(folder: Path) -> Generator[None]:
    """Make the folder; whatever goes wrong with its disk is the user's to mend."""
    try:
        (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: weights could not be kept there ({error}); make room, or name "
            "another folder with the environment variable MULTIGRAIN_CACHE"
        ) from error


def _fetch_and_convert(name: str, workdir: Path, trusted: Sequence[str]) -> None:
    # Converting is for those who ask for a name: whoever opens a path need not load it.
    from multigrain_jax.convert.convert import convert_checkpoint

    row = PUBLISHED[name]
    print(f"{name}: under {row.licence}", flush=True)
    file = workdir.parent / DOWNLOADS / row.file_name
    _fetch(name, row, file, trusted)
    try:
        convert_checkpoint(
            file, workdir, backbone=row.backbone, published=row.record(name)
        )
    except InputError as error:
        raise InputError(
            f"{name}: {error}\nThe file is kept as {file}: the same command goes on "
            "with it; delete it to have it downloaded anew"
        ) from error
    load_checkpoint(workdir)  # verifies every array
    file.unlink()


def _fetch(
    name: str, row: PublishedWeights, file: Path, trusted: Sequence[str]
) -> None:
    if not file.exists():
        print(f"{name}: downloading {row.address}", flush=True)
    try:
        download(
            row.address,
            file,
            length=row.length,
            sha256=row.sha256,
            trusted=trusted,
        )
    except DownloadError as error:
        raise InputError(
            f"{name}: {row.address} was not downloaded: {error}. Try again later, or "
            "fetch that file by hand and give the same command again after\n"
            f"  mv {row.file_name} {file}\n"
            f"or give weights/{name} in place of the name after\n"
            f"  multigrain convert {row.file_name} weights/{name}"
        ) from error
