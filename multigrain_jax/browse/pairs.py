"""Pairs of a collection for the page: found once, with the progress, and grouped anew.

What finds and groups them is in `descriptors/near_duplicates.py`.
"""

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.near_duplicates import (
    connected_groups,
    near_duplicates,
    without_links,
)
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.errors import InputError

# "single": what pairs connect, also over others. "complete": each two are a pair.
Linkage = Literal["single", "complete"]
LINKAGES: tuple[Linkage, ...] = ("single", "complete")
# Similarities so near to 1 are those of photos of the same pixels.
TOLERANCE = 1e-5
READ_ROWS = 16_384
# Where nearly all photos are as similar, so much of what is left to 1 is kept.
RAISED_BY = 0.5
ATTEMPTS = 8


class Pairs(NamedTuple):
    """Pairs of photos, links to one photo left out.

    Attributes:
        rows: int64 [P, 2], a < b.
        similarities: float32 [P].
        lowest: the similarity from which on all pairs are there.
    """

    rows: np.ndarray
    similarities: np.ndarray
    lowest: float


def find_pairs(
    index: DescriptorIndex,
    lowest: float,
    *,
    on_progress: Callable[[float], None],
) -> Pairs:
    """All pairs from a low similarity on; of too many, those from a higher one on.

    Args:
        index: the collection.
        lowest: least similarity.
        on_progress: told the share that is done, from 0 to 1.
    """
    for _ in range(ATTEMPTS):
        try:
            found = near_duplicates(_watched(index, on_progress), lowest)
        except InputError:
            lowest = 1 - RAISED_BY * (1 - lowest)
            continue
        rows = np.unique(found.pairs)
        paths = zip(rows.tolist(), index.paths(rows), strict=True)
        found, _ = without_links(found, {row: identity_of(p) for row, p in paths})
        # Storing has rounded the lengths, to which two copies of a photo are as alike.
        lengths = _lengths(index)[found.pairs]
        similarities = found.similarities / lengths.prod(axis=1)
        is_same = similarities >= 1 - TOLERANCE
        similarities = np.where(is_same, np.float32(1), similarities)
        return Pairs(found.pairs, similarities, lowest)
    raise InputError(
        f"lowest_threshold: nearly all photos are more similar than {lowest:.4f}, "
        "expected a model that tells them apart"
    )


def group_pairs(
    pairs: np.ndarray, similarities: np.ndarray, *, threshold: float, linkage: Linkage
) -> list[np.ndarray]:
    """The groups that pairs of at least a similarity form.

    Args:
        pairs: int [P, 2], a < b, each pair once.
        similarities: [P].
        threshold: the least similarity of a pair that counts.
        linkage: "single" or "complete".

    Returns:
        Ascending rows; the largest groups first, of equal ones that of the smallest
        row.
    """
    counts = similarities >= threshold
    pairs, similarities = pairs[counts], similarities[counts]
    if linkage == "single":
        return connected_groups(pairs)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -similarities))
    members: dict[int, list[int]] = {row: [row] for row in np.unique(pairs).tolist()}
    group_of = {row: row for row in members}
    # How many pairs two groups have between them; with all of them they are joined.
    between: dict[int, dict[int, int]] = {row: {} for row in members}
    for a, b in pairs[order].tolist():
        a, b = group_of[a], group_of[b]
        count = between[a].get(b, 0) + 1
        between[a][b] = between[b][a] = count
        if count < len(members[a]) * len(members[b]):
            continue
        for other, number in between.pop(b).items():
            del between[other][b]
            if other != a:
                between[a][other] = between[other][a] = (
                    between[a].get(other, 0) + number
                )
        group_of.update(dict.fromkeys(members[b], a))
        members[a] += members.pop(b)
    groups = [np.array(sorted(rows), np.int64) for rows in members.values()]
    return sorted((g for g in groups if len(g) > 1), key=lambda g: (-len(g), g[0]))


def _lengths(index: DescriptorIndex) -> np.ndarray:
    """The length of every descriptor; 1 of those that are zero."""
    lengths = np.ones(len(index), np.float32)
    for first in range(0, len(index), READ_ROWS):
        own = lengths[first : first + READ_ROWS]
        own[:] = np.linalg.norm(index.read(first, len(own)).astype(np.float32), axis=1)
    return np.where(lengths > 0, lengths, np.float32(1))


def _watched(
    index: DescriptorIndex, on_progress: Callable[[float], None]
) -> DescriptorIndex:
    """The same index, which tells how much of it was read of what will be."""
    watched = copy.copy(index)
    done = 0

    def read_padded(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal done
        done += 1
        blocks = -(-len(index) // count)
        # Each block is read once, and with each block that is not before it.
        on_progress(min(1.0, done / (blocks + blocks * (blocks + 1) / 2)))
        return index.read_padded(first, count)

    watched.read_padded = read_padded
    return watched
