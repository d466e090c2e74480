"""The task `near_duplicates` on a folder of photos: no network is needed."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax import buckets
from multigrain_jax.data.bucket_paths import absolute_path, as_path
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.notes import NoteLog
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.descriptors.folder import DESCRIPTOR_FOLDER, HEAD_FILE
from multigrain_jax.descriptors.hash_pairs import (
    as_similarity,
    distances_of,
    largest_distance,
)
from multigrain_jax.descriptors.photo_duplicates import (
    PhotoDuplicates,
    photo_duplicates,
)
from multigrain_jax.descriptors.photo_hashes import (
    BITS,
    INSTALL,
    PLAIN,
    can_hash,
    require_hashes,
)
from multigrain_jax.errors import InputError, printable
from multigrain_jax.growing_file import dispensable
from multigrain_jax.pages.gallery import load_photo
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import (
    MAX_PHOTOS_PER_GROUP,
    noted_group_rows,
    short_name,
)
from multigrain_jax.tasks.duplicate_tables import (
    HASH,
    MIRROR,
    Pair,
    begin_results,
    write_duplicate_tables,
)
from multigrain_jax.tasks.large_groups import warn_of_large_group
from multigrain_jax.tasks.prepare import leave_if_taken, task_of
from multigrain_jax.workdir import write_results

# Of groups that are too large.
REMEDY = (
    "a smaller --config.hash_distance, or --config.linkage=complete, where each two "
    "photos of a group are a pair"
)
HASHES = ("auto", "yes", "no")
# Keys that say nothing of a folder of photos -> the values that they may have.
_NEED_DESCRIPTORS = {"reference": None, "pairs": "any", "threshold": "auto"}


def is_photo_folder(path: str | Path) -> bool:
    """Whether a collection is a folder of photos, and none of descriptors.

    A workdir of a task is none either, though it may have no results yet. Any other
    `config.json` says nothing: programs of all kinds leave one.
    """
    folder = as_path(path)
    if not folder.is_dir() or task_of(folder) is not None:
        return False
    inside = [folder / DESCRIPTOR_FOLDER, *folder.glob(f"*/{DESCRIPTOR_FOLDER}")]
    return not any((each / HEAD_FILE).exists() for each in (folder, *inside))


def names_photos(path: str) -> bool:
    """`is_photo_folder` of a path as it is typed; of what cannot be looked at, no."""
    with contextlib.suppress(OSError, InputError):  # which the run itself will tell
        return bool(path) and is_photo_folder(buckets.expand(path))
    return False


def run_on_photos(
    settings: Mapping[str, Any], workdir: Path, started: float
) -> dict[str, float]:
    """Find what is the same in the folder `database`; returns what results.json holds.

    Args:
        settings: the configuration as nested dictionaries.
        workdir: where results go.
        started: when the task began.

    Raises:
        InputError: no photos, or keys that need descriptors.
    """
    _refuse_what_needs_descriptors(settings)
    if settings["hashes"] == "yes":
        require_hashes()
    hashed = settings["hashes"] != "no" and can_hash()
    source = _open_photos(settings)
    begin_results(workdir, settings)
    paths = [source.describe(row) for row in range(len(source))]
    print(_first_line(settings, len(paths), hashed=hashed), flush=True)
    NoteLog(source, workdir=workdir)
    found = photo_duplicates(
        paths,
        hash_distance=settings["hash_distance"] if hashed else None,
        linkage=settings["linkage"],
        decoding=source.decoding,
        watched=True,
    )
    SkipLog(source, workdir=workdir, max_fraction=math.inf).record(found.unreadable())
    if found.largest_kept is not None:
        print(
            f"more than {len(found.pairs)} pairs are as near: the nearest "
            f"{len(found.pairs)} are kept, up to {found.largest_kept} bits"
        )
    found, lowest = _nearest_first(found)
    leave_if_taken(workdir)
    write_duplicate_tables(
        workdir,
        paths=dict(enumerate(paths)),
        groups=found.groups,
        lowest=lowest,
        pairs=_pairs(found),
        same_bytes=found.same_bytes,
        links=found.links,
    )
    _write_page(workdir, found, paths, lowest, settings)
    results: dict[str, float] = {
        "num_images": len(paths) - len(found.links),
        "num_pairs": len(found.pairs) + len(found.copies) + len(found.same_bytes),
        "num_groups": len(found.groups),
        "num_images_in_groups": sum(len(group) for group in found.groups),
        "num_same_bytes": len(found.same_bytes),
        "num_links": len(found.links),
        "num_unreadable": len(found.unreadable()),
    }
    if found.hashes is not None:
        results["num_too_plain"] = int(np.sum(found.hashes.states == PLAIN))
    warn_of_large_group(found.groups, results["num_images"], REMEDY)
    results["seconds"] = time.perf_counter() - started
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    print("nothing was deleted")
    write_results(workdir, results)
    return results


def _refuse_what_needs_descriptors(settings: Mapping[str, Any]) -> None:
    folder = printable(str(settings["database"]))
    for key, alone in _NEED_DESCRIPTORS.items():
        if settings[key] != alone:
            raise InputError(
                f"{key}: found {settings[key]!r} with a folder of photos, {folder}, "
                "and it needs descriptors; embed the photos (`multigrain embed`) and "
                f"give that workdir as database, or leave {key} out"
            )


def _open_photos(settings: Mapping[str, Any]) -> FileSource:
    folder = as_path(absolute_path(settings["database"]))
    data = settings["data"]
    sieve = Sieve(data["exclude"], "skip")
    try:
        files, names = index_folder(
            folder, split=None, sieve=sieve, instances=None, key="database"
        )
    except InputError as error:
        raise InputError(
            f"database: {folder} has neither descriptors nor photos; give the workdir "
            f"of `embed`, or a folder of photos ({error})"
        ) from error
    return FileSource(
        files,
        class_names=names,
        decoding=dataclasses.replace(VIEWER, max_megapixels=data["max_megapixels"]),
        remarks=sieve.remarks,
        local_cache_dir=None,
    )


def _first_line(settings: Mapping[str, Any], count: int, *, hashed: bool) -> str:
    folder = printable(str(settings["database"]))
    said = f"{folder}: {count} photos, without a network: files of the same bytes"
    if hashed:
        bits = f"{settings['hash_distance']} of {BITS} bits"
        return f"{said}, then photos whose hashes differ in at most {bits}"
    if settings["hashes"] == "no":
        return f"{said} alone"
    return f"{said} alone; photos that are nearly the same too with {INSTALL}"


def _pairs(found: PhotoDuplicates) -> Iterator[Pair]:
    """The lines of pairs.csv, the nearest first."""
    for copy, first in found.same_bytes.items():
        yield Pair(first, copy, 1.0, "bytes")
    for copy, first in found.copies.tolist():
        yield Pair(first, copy, 1.0, HASH, 0)
    similarities = as_similarity(found.distances).tolist()
    for number in np.argsort(found.distances, kind="stable").tolist():
        a, b = found.pairs[number].tolist()
        by = MIRROR if found.mirrored[number] else HASH
        yield Pair(a, b, similarities[number], by, int(found.distances[number]))


def _nearest_first(found: PhotoDuplicates) -> tuple[PhotoDuplicates, np.ndarray]:
    """The same, of groups of one size the nearest first; and their least similarity."""
    bits = np.zeros(len(found.groups), np.int64)
    if found.hashes is not None:
        hashes = found.hashes
        bits[:] = [largest_distance(hashes, group) for group in found.groups]
    sizes = np.array([-len(group) for group in found.groups])
    order = np.lexsort((bits, sizes)).tolist()
    groups = [found.groups[place] for place in order]
    return found._replace(groups=groups), as_similarity(bits[order])


def _write_page(
    workdir: Path,
    found: PhotoDuplicates,
    paths: list[str],
    lowest: np.ndarray,
    settings: Mapping[str, Any],
) -> None:
    num_photos = sum(len(group) for group in found.groups)

    def note(first: int, row: int) -> str:
        if row in found.same_bytes:
            return f"the same bytes as {short_name(paths[found.same_bytes[row]])}"
        if found.hashes is None or row == first:
            return ""
        bits, mirrored = distances_of(found.hashes, np.array([[first, row]]))
        said = f"{bits[0]} bits from" if bits[0] else "the same hash as"
        said += " the first"
        return said + (", mirrored" if mirrored[0] else "")

    def about(number: int) -> str:
        group = found.groups[number]
        same = sum(row in found.same_bytes for row in group.tolist())
        said = f"Group {number + 1}: {len(group)} photos"
        if same == len(group) - 1:
            return f"{said}, the same file"
        said += f", {same} of them the same file as another" if same else ""
        bits = round((1 - float(lowest[number])) * BITS)
        return f"{said}, any two within {bits} of {BITS} bits"

    how = "Photos of the same bytes"
    if found.hashes is not None:
        how += (
            " or whose perceptual hashes differ in at most "
            f"{settings['hash_distance']} of {BITS} bits"
        )
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Duplicates",
            subtitle=f"{len(found.groups)} groups of {num_photos} among "
            f"{len(paths) - len(found.links)} photos, found without a network",
            results=[],
            rows=noted_group_rows(
                found.groups,
                paths=paths,
                load=load_photo,
                lowest=lowest,
                note=note,
                about=about,
            ),
            heading="Groups",
            rows_are="groups",
            note=f"{how}. The largest groups come first, of equally large ones the "
            f"nearest. Of each there are up to {MAX_PHOTOS_PER_GROUP} photos.",
        )
