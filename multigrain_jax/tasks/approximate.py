"""The approximate index that a search goes through, and how much it finds."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from multigrain_jax.descriptors.approximate.engine import MAX_CANDIDATES, Effort
from multigrain_jax.descriptors.approximate.opening import open_engine
from multigrain_jax.descriptors.approximate.record import find_index
from multigrain_jax.descriptors.approximate.search import (
    ApproximateIndex,
    open_approximate,
)
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.tasks.neighbours import Neighbour, nearest_photos

RECALL_AT = 10
# Similarities that are so near are the same: two ways to add them up.
TOLERANCE = 1e-6


def index_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with how an index is to be searched."""
    if settings["index"] and jax.process_count() > 1:
        return [
            f"index: found one with {jax.process_count()} hosts, which would each hold "
            "all of it; expected None, where each searches its share exactly, or one "
            "host"
        ]
    count = settings["approximate"]["num_candidates"]
    if not isinstance(count, int) or count <= MAX_CANDIDATES:
        return []
    return [
        f"approximate.num_candidates: found {count}, expected at most {MAX_CANDIDATES}"
    ]


@contextlib.contextmanager
def open_index(
    settings: Mapping[str, Any], collection: DescriptorIndex
) -> Generator[DescriptorIndex | ApproximateIndex]:
    """What is searched: the index that the configuration names, or all of a collection.

    Raises:
        InputError: it is none, of other descriptors, or damaged.
    """
    if not settings["index"]:
        yield collection
        return
    effort = dict(settings["approximate"])
    del effort["num_recall_queries"]
    folder = find_index(Path(settings["index"]))
    index = open_approximate(collection, folder, open_engine, effort=Effort(**effort))
    if index.num_new:
        print(
            f"{folder}: {index.num_new} of {int(collection.live.sum())} photos are not "
            "in the index yet and are searched exactly; run the task `index` again to "
            "add them"
        )
    try:
        yield index
    finally:
        index.close()


def recall_results(
    index: DescriptorIndex | ApproximateIndex,
    paths: list[str],
    descriptors: np.ndarray,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """What results.json tells of a search through an index; nothing of an exact one.

    Some of the queries, at equal distances, are searched exactly, too.

    Args:
        index: that was searched.
        paths: of the Q queries.
        descriptors: [Q, D].
        settings: the configuration.
    """
    if isinstance(index, DescriptorIndex):
        return {}
    results: dict[str, float] = {"num_not_in_index": index.num_new}
    count = min(settings["approximate"]["num_recall_queries"], len(paths))
    if not count:
        return results
    places = np.unique(np.linspace(0, len(paths) - 1, count).round().astype(np.int64))
    sample = [paths[place] for place in places]
    found, expected = (
        nearest_photos(collection, sample, descriptors[places], k=RECALL_AT)
        for collection in (index, index.exact)
    )
    share = recall(found, expected)
    print(
        f"recall@{RECALL_AT}: {share:.1%} of the {RECALL_AT} most similar photos of "
        f"{len(sample)} queries were found; more --config.approximate.num_candidates, "
        "num_probes or ef_search find more"
    )
    return results | {
        f"recall_at_{RECALL_AT}": share,
        "num_recall_queries": len(sample),
    }


def recall(
    found: Sequence[Sequence[Neighbour]], expected: Sequence[Sequence[Neighbour]]
) -> float:
    """The share of the true neighbours that were found.

    Photos that are as similar as the last of the true ones stand for each other.

    Args:
        found: of each query.
        expected: the true ones of the same queries, the most similar first.
    """
    hits = total = 0
    for own, true in zip(found, expected, strict=True):
        if true:
            least = true[-1].similarity - TOLERANCE
            good = sum(neighbour.similarity >= least for neighbour in own)
            hits += min(good, len(true))
            total += len(true)
    return hits / total if total else 1.0
