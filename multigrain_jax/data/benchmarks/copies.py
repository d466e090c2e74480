"""A benchmark of copies made from any photos, as DISC21 is made: most find nothing.

Some photos are edited, and the copies look for their originals among these and others
that only distract; copies of photos that are not there find nothing, and must be less
sure of it. Douze et al., "The 2021 image similarity dataset and challenge", arXiv
2106.09672.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    METRICS_OVER_ALL,
    Benchmark,
    BenchmarkFiles,
    Protocol,
)
from multigrain_jax.data.benchmarks.others import (
    DISTRACTORS,
    TRAINING,
    list_others,
    refuse_own,
)
from multigrain_jax.data.same_bytes import same_bytes
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError

# protocol -> the edit of `EDITS` whose copies are its queries
ONE_EDIT = {
    "crop_50": "crop 50 %",
    "crop_20": "crop 20 %",
    "jpeg_10": "JPEG 10",
    "rotation_flip": "rotation 15° + flip",
    "overlay": "overlay",
    "strong": "strong",
}
ROLES_SEED = 0


class Roles(NamedTuple):
    """What photos are in a benchmark of copies: int64 numbers, ascending, each once.

    Attributes:
        references: in the database; their copies are queries.
        distractors: in the database, and nothing else.
        strangers: not in the database; their copies are queries with nothing to find.
    """

    references: np.ndarray
    distractors: np.ndarray
    strangers: np.ndarray


def assign_roles(count: int, *, seed: int) -> Roles:
    """A third of the photos for each role, drawn by lot.

    Args:
        count: photos, numbered from 0.
        seed: of the lots.
    """
    order = np.random.default_rng(seed).permutation(count)
    return Roles(*(np.sort(part) for part in np.array_split(order, 3)))


def load_copies(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """Copies of a folder's photos look for their originals, among distractors.

    `assign_roles` says which photos are what: always the same ones. Files that are
    another photo byte for byte have no role, and remarks count them. The queries are
    copies of references and strangers by every edit of `EDITS`. Protocols: all edits
    ("raw", and "normalized" by the photos of `training`), and each edit alone.

    Args:
        files: `root`, a folder of photos, whatever its subfolders; `distractors`, a
            folder of others that join the database; `training`, a folder of others, by
            which scores are normalised.
        counts: none.

    Raises:
        InputError: fewer than three photos; or none in one of the other folders, or
            photos that are in another one too.
    """
    sieve = Sieve(files.exclude, "refuse")
    listed, _ = index_folder(files.root, split=None, sieve=sieve, instances=None)
    photos = [file.path for file in listed]
    distractors = list_others(files.distractors, key=DISTRACTORS, sieve=sieve)
    training = list_others(files.training, key=TRAINING, sieve=sieve)
    refuse_own(distractors, photos, key=DISTRACTORS)
    refuse_own(training, [*photos, *distractors], key=TRAINING)
    photos, distractors = _each_once(photos, distractors, files=files, sieve=sieve)
    if len(photos) < 3:
        raise InputError(
            f"{files.root}: found {len(photos)} photos, expected three or more: one to "
            "be found, one to distract and one that is not there; give a larger folder"
            + "".join(f"\n  {line}" for line in sieve.remarks)
        )
    roles = assign_roles(len(photos), seed=ROLES_SEED)
    database = [*roles.references, *roles.distractors]
    asked = [*roles.references, *roles.strangers]
    paths = [*(photos[n] for n in database), *distractors, *training]
    first_query = len(paths)
    paths += [photos[n] for _ in ONE_EDIT for n in asked]
    edits = np.repeat(list(ONE_EDIT.values()), len(asked)).tolist()
    return Benchmark(
        name="copies",
        root=files.root,
        paths=paths,
        queries=np.arange(first_query, len(paths)),
        database=np.arange(len(database) + len(distractors)),
        training=len(database) + len(distractors) + np.arange(len(training)),
        protocols=_protocols(
            len(asked), len(roles.references), with_training=bool(training)
        ),
        edited={first_query + number: edit for number, edit in enumerate(edits)},
        apply_exif_orientation=True,
        remarks=sieve.remarks,
    )


def _each_once(
    photos: Sequence[str],
    distractors: Sequence[str],
    *,
    files: BenchmarkFiles,
    sieve: Sieve,
) -> tuple[list[str], list[str]]:
    """Photos and distractors without what is byte for byte an earlier photo.

    With one photo in two roles, what finds it would be right and count as wrong. Only
    distractors may be like one another.
    """
    everything = [*photos, *distractors]
    rows = np.arange(len(everything))
    same = same_bytes([rows], dict(enumerate(everything)))
    again = {row for row, first in same.items() if first < len(photos)}
    of_photos = sorted(row for row in again if row < len(photos))
    of_distractors = sorted(again.difference(of_photos))
    for folder, left_out in (
        (files.root, of_photos),
        (files.distractors, of_distractors),
    ):
        if left_out and folder is not None:
            row = left_out[0]
            line = f"{len(left_out)} photos that are another one byte for byte, such as"
            sieve.add(
                folder, [f"{line} {everything[row]}, which is {everything[same[row]]}"]
            )
    return (
        [path for row, path in enumerate(photos) if row not in again],
        [
            path
            for row, path in enumerate(distractors, start=len(photos))
            if row not in again
        ],
    )


def _protocols(
    num_asked: int, num_references: int, *, with_training: bool
) -> list[Protocol]:
    """All edits together, and each alone; copy n of an edit is of reference n."""
    nothing = np.empty(0, np.int64)
    of_one = [
        np.array([n]) if n < num_references else nothing for n in range(num_asked)
    ]

    def protocol(name: str, first: int, count: int, *, normalized: bool) -> Protocol:
        return Protocol(
            name,
            METRICS_OVER_ALL,
            first + np.arange(count * num_asked),
            of_one * count,
            [nothing] * (count * num_asked),
            normalized=normalized,
        )

    count = len(ONE_EDIT)
    protocols = [protocol("raw", 0, count, normalized=False)]
    if with_training:
        protocols.append(protocol("normalized", 0, count, normalized=True))
    return protocols + [
        protocol(name, number * num_asked, 1, normalized=False)
        for number, name in enumerate(ONE_EDIT)
    ]
