"""Photos that are the same: equal descriptors in their thousands."""

from collections.abc import Iterator

import numpy as np

from multigrain_jax.descriptors.joined import TOLERANCE, JoinedIndex

# More photos that are the same than this are one in the search for pairs.
MANY_COPIES = 64
READ_BYTES = 16 << 20
# Rows are sorted into cells of a lattice, so many times and by so many directions each:
# equal rows are nearly always in one cell, and others in different ones.
LATTICES = 3
DIRECTIONS = 8
CELL = 0.05  # in units of what a random direction is of a random row of unit length


def many_copies(
    index: JoinedIndex, live: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """Live rows of a similarity of 1, where there are more than `MANY_COPIES` of them.

    Which is within `TOLERANCE`. The collections are read a few times, and no two rows
    are compared that are not likely to be the same.

    Args:
        index: the collections.
        live: bool [N], the rows that count.
        labels: int [N], within which rows are compared; None: all with all.

    Returns:
        int64 [C, 2], each such row but the first, ascending, and that first one.
    """
    live, first = live.copy(), np.arange(len(index))
    for number in range(LATTICES):
        rows = np.flatnonzero(live)
        cells = _cells(index, np.random.default_rng(number))[rows]
        if labels is not None:
            cells = cells + labels[rows].astype(np.uint64) * _FACTOR
        _, smallest, of_row, counts = np.unique(
            cells, return_index=True, return_inverse=True, return_counts=True
        )
        many = counts[of_row] > MANY_COPIES
        copies = np.stack([rows[many], rows[smallest[of_row[many]]]], axis=1)
        copies = copies[copies[:, 0] != copies[:, 1]]
        # Different rows, or labels, may have met by chance.
        same = _are_same(index, copies)
        if labels is not None:
            same &= labels[copies[:, 0]] == labels[copies[:, 1]]
        copies = copies[same]
        first[copies[:, 0]] = copies[:, 1]
        live[copies[:, 0]] = False
    # What was first in one lattice may be a copy in the next one.
    while not np.array_equal(first, above := first[first]):
        first = above
    rows = np.flatnonzero(first != np.arange(len(index)))
    return np.stack([rows, first[rows]], axis=1)


_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def _blocks(index: JoinedIndex) -> Iterator[tuple[int, np.ndarray]]:
    """The number of the first row, and rows of unit length, some at a time."""
    count = max(1, READ_BYTES // (8 * index.parts[0].dim))
    for start in range(0, len(index), count):
        rows = np.arange(start, min(start + count, len(index)))
        yield start, index.read_rows(rows)


def _cells(index: JoinedIndex, rng: np.random.Generator) -> np.ndarray:
    """The cell of a random lattice that each row is in, as a number: uint64 [N]."""
    dim = index.parts[0].dim
    directions = rng.standard_normal((dim, DIRECTIONS)).astype(np.float32) / CELL
    offsets, factors = rng.random(DIRECTIONS), rng.integers(1 << 62, size=DIRECTIONS)
    factors = 2 * factors.astype(np.uint64) + np.uint64(1)
    found = []
    for _, rows in _blocks(index):
        places = np.floor(rows @ directions + offsets).astype(np.int64)
        found.append(places.astype(np.uint64) @ factors)
    return np.concatenate(found)


def _are_same(index: JoinedIndex, pairs: np.ndarray) -> np.ndarray:
    """Whether the similarity of ascending rows to earlier ones is 1; bool [C]."""
    same = np.zeros(len(pairs), bool)
    if not len(pairs):
        return same
    wanted, of_pair = np.unique(pairs[:, 1], return_inverse=True)
    firsts = index.read_rows(wanted)
    for start, rows in _blocks(index):
        own = slice(*np.searchsorted(pairs[:, 0], (start, start + len(rows))))
        left = rows[pairs[own, 0] - start]
        products = np.einsum("nd,nd->n", left, firsts[of_pair[own]])
        same[own] = products >= 1 - TOLERANCE
    return same
