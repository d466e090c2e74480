"""Pairs of a collection for the page: found once, with the progress, and grouped anew.

What finds and groups them is in `descriptors/`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.grouping import Linkage, group_pairs, without_rows
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.near_duplicates import near_duplicates, without_links
from multigrain_jax.descriptors.roots import identity_of


class Pairs(NamedTuple):
    """Pairs of photos, links to one photo left out.

    Attributes:
        rows: int64 [P, 2], a < b.
        similarities: float32 [P].
        copies: int64 [C, 2], rows and the earlier one that they equal, of which there
            are too many for pairs.
        lowest: the similarity from which on all pairs are there.
    """

    rows: np.ndarray
    similarities: np.ndarray
    copies: np.ndarray
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
    found = near_duplicates(
        index, lowest, linkage="single", reference=None, on_progress=on_progress
    )
    rows = found.rows()
    paths = zip(rows.tolist(), index.paths(rows), strict=True)
    identities = {row: identity_of(path) for row, path in paths}
    found, _ = without_links(found, identities, linkage="single")
    kept = lowest if found.lowest_kept is None else max(lowest, found.lowest_kept)
    return Pairs(found.pairs, found.similarities, found.copies, kept)


def group_alive(
    pairs: Pairs, alive: np.ndarray, *, threshold: float, linkage: Linkage
) -> list[np.ndarray]:
    """The groups that pairs of at least a similarity form, of the rows that are left.

    Args:
        pairs: from `find_pairs`.
        alive: bool [N], the rows that are left.
        threshold: the least similarity of a pair that counts.
        linkage: which groups, as `group_pairs` has them.

    Returns:
        Ascending rows; the largest groups first, of equal ones that of the smallest
        row.
    """
    left, similarities, copies = without_rows(
        pairs.rows, pairs.similarities, pairs.copies, alive
    )
    return group_pairs(
        left, similarities, threshold=threshold, linkage=linkage, copies=copies
    )
