"""Revisited Oxford and Paris: landmarks, in three degrees of difficulty.

Radenović et al., "Revisiting Oxford and Paris", CVPR 2018.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFiles,
    Protocol,
    TurnAndCrop,
    first_folder,
    require_count,
    require_files,
)
from multigrain_jax.data.benchmarks.plain_pickle import PickledArray, load_plain_pickle
from multigrain_jax.errors import InputError

METRICS = ("map", "mp_at_1", "mp_at_5", "mp_at_10")
# protocol -> (the lists that are positives, the lists that are junk)
PROTOCOLS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
LISTS = ("easy", "hard", "junk")
TAKE_ANEW = "take the file anew from the page of the revisitop project"


def load_roxford5k(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """Revisited Oxford; arguments and errors as of `load_revisited`."""
    return load_revisited("roxford5k", files, counts)


def load_rparis6k(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """Revisited Paris; arguments and errors as of `load_revisited`."""
    return load_revisited("rparis6k", files, counts)


def load_revisited(
    name: str, files: BenchmarkFiles, counts: Mapping[str, int]
) -> Benchmark:
    """A revisited benchmark: queries are boxes in photos outside of the database.

    Args:
        name: "roxford5k" or "rparis6k".
        files: `root` has gnd_<name>.pkl, if `ground_truth` is not given, and the
            photos, or a folder `jpg` of them.
        counts: `images` and `queries`.

    Raises:
        InputError: files are missing, or the ground truth is not what it should be.
    """
    origin = (
        f"gnd_{name}.pkl is on the page of the revisitop project, and the photos are "
        "on those of the Visual Geometry Group's Oxford and Paris Buildings datasets"
    )
    path = files.ground_truth or files.root / f"gnd_{name}.pkl"
    if not path.is_file():
        raise InputError(
            f"{name}: no ground truth {path}; nothing is downloaded, {origin}"
        )
    truth = _read_truth(path)
    for what, key in (("images", "imlist"), ("queries", "qimlist")):
        require_count(
            f"{name}, {what}",
            path,
            found=len(truth[key]),
            expected=counts[what],
            origin=origin,
        )
    names = [f"{image}.jpg" for image in (*truth["imlist"], *truth["qimlist"])]
    num_database, num_queries = len(truth["imlist"]), len(truth["qimlist"])
    paths = require_files(
        name, first_folder(files.root, ("jpg",)), names, origin=origin
    )
    lists = [
        {key: _positions(path, row, key, num_database) for key in LISTS}
        for row in truth["gnd"]
    ]
    cropped = {
        num_database + query: TurnAndCrop(box=_box(path, row))
        for query, row in enumerate(truth["gnd"])
    }
    return Benchmark(
        name=name,
        root=files.root,
        paths=paths,
        queries=num_database + np.arange(num_queries),
        database=np.arange(num_database),
        protocols=[
            Protocol(
                protocol,
                METRICS,
                np.arange(num_queries),
                [np.concatenate([row[key] for key in positives]) for row in lists],
                [np.concatenate([row[key] for key in junk]) for row in lists],
            )
            for protocol, (positives, junk) in PROTOCOLS.items()
        ],
        turned_or_cropped=cropped,
    )


def _read_truth(path: Path) -> dict[str, Any]:
    """The ground truth's three lists, checked for what they hold."""
    truth = load_plain_pickle(path)
    expected = "a dictionary of the lists imlist, qimlist and gnd"
    if not isinstance(truth, dict):
        raise InputError(
            f"{path}: found {type(truth).__name__}, expected {expected}; {TAKE_ANEW}"
        )
    for key, kind in (("imlist", str), ("qimlist", str), ("gnd", dict)):
        values = truth.get(key)
        if not isinstance(values, list) or not all(
            isinstance(value, kind) for value in values
        ):
            raise InputError(
                f"{path}: {key} is no list of {kind.__name__}; expected {expected}; "
                f"{TAKE_ANEW}"
            )
    strange = [
        name for key in ("imlist", "qimlist") for name in truth[key] if "/" in name
    ]
    if strange or len(truth["gnd"]) != len(truth["qimlist"]):
        raise InputError(
            f"{path}: {len(truth['gnd'])} entries of gnd for {len(truth['qimlist'])} "
            f"queries, and {len(strange)} image names with a folder in them; expected "
            f"one entry per query, and plain names; {TAKE_ANEW}"
        )
    return truth


def _positions(
    path: Path, row: Mapping[str, Any], key: str, num_database: int
) -> np.ndarray:
    values = _numbers(path, row, key)
    positions = values.astype(np.int64)
    strange = (positions != values) | (values < 0) | (values >= num_database)
    if np.any(strange):
        raise InputError(
            f"{path}: {key} names the images {values[strange][:3].tolist()}, expected "
            f"whole numbers from 0 to {num_database - 1}; {TAKE_ANEW}"
        )
    return positions


def _box(path: Path, row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    values: Sequence[float] = _numbers(path, row, "bbx").tolist()
    if len(values) != 4 or values[0] >= values[2] or values[1] >= values[3]:
        raise InputError(
            f"{path}: bbx = {values}, expected left, top, right and bottom; {TAKE_ANEW}"
        )
    left, top, right, bottom = values
    return left, top, right, bottom


def _numbers(path: Path, row: Mapping[str, Any], key: str) -> np.ndarray:
    try:
        values = row[key]
        if not isinstance(values, PickledArray):
            # Not lists of lists: of the same ones, NumPy would make each anew.
            values = [float(value) for value in values]
        return np.asarray(values, np.float64).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: an entry of gnd without the numbers {key!r} ({error}); expected "
            f"bbx, {', '.join(LISTS)}; {TAKE_ANEW}"
        ) from error
