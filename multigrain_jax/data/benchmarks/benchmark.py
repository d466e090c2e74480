"""What a retrieval benchmark is: images, queries, and what is right for each query.

A loader turns a folder into a `Benchmark`; whatever computes scores knows nothing else.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.bucket_paths import list_names
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.errors import InputError, printable

NAMED_MISSING = 10  # so many missing files are named in an error
# Of rankings, and of one threshold for all queries that tells what is right.
METRICS_WITH_THRESHOLD = ("map", "recall_at_p90", "threshold_at_p90")
# Of all pairs of a query and an image, ranked together.
METRICS_OVER_ALL = (
    "micro_ap",
    "recall_at_p90",
    "threshold_at_p90",
    "recall_at_1",
    "recall_at_10",
)

Box = tuple[float, float, float, float]


class TurnAndCrop(NamedTuple):
    """What is done to an image before it is described.

    Attributes:
        clockwise: it is turned by 0, 90, 180 or 270 degrees, then
        box: cut to left, top, right, bottom, in pixels; None keeps all of it.
    """

    clockwise: int = 0
    box: Box | None = None


@dataclass(frozen=True)
class Protocol:
    """One way to score a benchmark's queries.

    Attributes:
        name: part of the results' names; empty where a benchmark needs none.
        metrics: what is reported: "map", "mp_at_1", "mp_at_5", "mp_at_10", "score",
            "r_precision", "map_at_r", "micro_ap", "recall_at_p90",
            "threshold_at_p90", "recall_at_1", "recall_at_10".
        queries: int64 [q], which of the benchmark's queries take part.
        positives: for each of them, positions in the database: what should be found.
        junk: for each of them, positions in the database that are taken out of the
            ranking before it is scored, positives or not: the query itself, say.
        normalized: whether scores are normalised by those of the training set.
    """

    name: str
    metrics: tuple[str, ...]
    queries: np.ndarray
    positives: Sequence[np.ndarray]
    junk: Sequence[np.ndarray]
    normalized: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's images and its protocols.

    Attributes:
        name: the first part of the results' names.
        root: the folder that it was read from.
        paths: every image file once, and those that are edited once more for each edit.
        queries: int64 [Q], positions in `paths`.
        database: int64 [N], positions in `paths`.
        protocols: the ways to score.
        training: int64 [T], positions in `paths`: images that are neither, from which
            scores are normalised.
        turned_or_cropped: what is done to which image, by its position in `paths`.
        edited: which edit of `EDITS` makes a copy of which image, likewise.
        apply_exif_orientation: whether these are one's own photos, which are shown
            upright; the published ones are taken as they are stored.
        remarks: lines about what was passed over when the images were listed.
    """

    name: str
    root: Path
    paths: Sequence[str]
    queries: np.ndarray
    database: np.ndarray
    protocols: Sequence[Protocol]
    training: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    turned_or_cropped: Mapping[int, TurnAndCrop] = field(default_factory=dict)
    edited: Mapping[int, str] = field(default_factory=dict)
    apply_exif_orientation: bool = False
    remarks: Sequence[str] = ()

    def image_name(self, index: int) -> str:
        """An image's path below the benchmark's folder, or all of it elsewhere.

        In brackets behind it: the edit of a copy.
        """
        path = self.paths[index]
        name = path.removeprefix(f"{self.root}{os.sep}")
        return f"{name} ({self.edited[index]})" if index in self.edited else name


@dataclass(frozen=True)
class BenchmarkFiles:
    """Where a benchmark lies on disk.

    Attributes:
        root: its folder.
        rotations: holidays: the table of degrees clockwise that turn photos upright.
        distractors: copydays, copies: a folder of images that join the database.
        distractor_list: copydays: only these of them, one path a line.
        ground_truth: roxford5k, rparis6k, disc21: the file, where it is not in root.
        query_list: disc21: names of the queries, one a line, in place of those that the
            ground truth lists.
        reference_list: disc21: names of the references, one a line, where not all are.
        training: disc21, copies, folder: a folder of other images, to normalise scores.
        exclude: patterns of names and paths that are passed over in folders.
    """

    root: Path
    rotations: Path | None = None
    distractors: Path | None = None
    distractor_list: Path | None = None
    ground_truth: Path | None = None
    query_list: Path | None = None
    reference_list: Path | None = None
    training: Path | None = None
    exclude: Sequence[str] = DEFAULT_EXCLUDE


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of `root`'s subfolders that is there; `root` itself if none is."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def file_names(folder: Path, extensions: tuple[str, ...] = (".jpg",)) -> list[str]:
    """The sorted names of a folder's images; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        name for name in list_names(folder) if name.lower().endswith(extensions)
    )


def require_files(
    what: str, folder: Path, names: Sequence[str], *, origin: str
) -> list[str]:
    """The paths of a folder's files, all of which must be there.

    Args:
        what: the images' name in the error.
        folder: where they are.
        names: which they are, below `folder`.
        origin: where the data comes from, for the error.

    Raises:
        InputError: a file is missing; the message names the first ten.
    """
    folders = {os.path.dirname(name) for name in names}
    present = {
        os.path.join(below, name)
        for below in folders
        if (folder / below).is_dir()
        for name in list_names(folder / below)
    }
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(
            f"{what}: {len(missing)} of {len(names)} files are missing from {folder}: "
            f"{name_some(missing)}; nothing is downloaded, {origin}"
        )
    return [str(folder / name) for name in names]


def require_count(
    what: str,
    folder: Path,
    *,
    found: int,
    expected: int,
    origin: str,
    missing: Sequence[str] = (),
) -> None:
    """Refuse another number than the benchmark has.

    Args:
        what: what is counted.
        folder: where it was looked for.
        found: how many there are.
        expected: how many there should be.
        origin: where the data comes from, for the error.
        missing: the files that are known to be missing.
    """
    if found == expected:
        return
    named = f" (missing: {len(missing)}: {name_some(missing)})" if missing else ""
    raise InputError(
        f"{what}: found {found} in {folder}, expected {expected}{named}; nothing is "
        f"downloaded, {origin}"
    )


def name_some(names: Collection[str]) -> str:
    """The first ten names, and an ellipsis if there are more."""
    some = ", ".join(map(printable, list(names)[:NAMED_MISSING]))
    return f"{some}, …" if len(names) > NAMED_MISSING else some


def rank_among_groups(
    groups: np.ndarray, queries: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positives and junk of queries that look for their group, themselves left out.

    Args:
        groups: int [N], each database image's group.
        queries: int [Q], the database images that are queries.
    """
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    members = np.split(order, starts[1:])
    number = np.unique(groups, return_inverse=True)[1]
    return (
        [members[number[query]] for query in queries],
        [np.array([query], np.int64) for query in queries],
    )
