"""Collections of descriptors whose rows are numbered one after the other."""

from collections.abc import Sequence

import numpy as np

from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.ops.pooling import NORM_EPSILON

# Similarities that are so near to 1 are 1: those of photos of the same pixels, whose
# descriptors differ by rounding. A photo that was saved anew is rarely as near.
TOLERANCE = 1e-5
# Rows that are compared with each other at once, on the host.
ROWS_AT_ONCE = 2048


class JoinedIndex:
    """One or several collections as one.

    Attributes:
        parts: the collections.
        starts: int64 [parts + 1], where each begins, and N.
        live: bool [N], as each of them has it.
    """

    def __init__(self, *parts: DescriptorIndex):
        """Number the rows of `parts`, at least one, in their order."""
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.live = np.concatenate([part.live for part in parts])

    def __len__(self) -> int:
        """N: rows of all collections, those that are not live among them."""
        return int(self.starts[-1])

    def paths(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """The image that each row belongs to."""
        rows = np.asarray(rows, np.int64)
        paths = np.empty(len(rows), object)
        for part, start, own in self._shares(rows):
            paths[own] = part.paths(rows[own] - start)
        return paths.tolist()

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Descriptors of unit length, float32 [n, D], of ascending rows."""
        rows = np.asarray(rows, np.int64)
        found = np.zeros((len(rows), self.parts[0].dim), np.float32)
        for part, start, own in self._shares(rows):
            numbers, places = rows[own] - start, np.flatnonzero(own)
            # Neighbouring rows are read at once.
            breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
            for first in np.split(np.arange(len(numbers)), breaks):
                if len(first):
                    run = part.read(int(numbers[first[0]]), len(first))
                    found[places[first]] = unit_rows(run)
        return found

    def _shares(self, rows: np.ndarray):
        for part, start, end in zip(
            self.parts, self.starts[:-1], self.starts[1:], strict=True
        ):
            own = (rows >= start) & (rows < end)
            if own.any():
                yield part, start, own


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] at unit length, in float32; those of zeros stay so."""
    rows = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return rows / np.maximum(lengths, NORM_EPSILON)[:, None]


def as_similarities(products: np.ndarray) -> np.ndarray:
    """Inner products of unit rows within [-1, 1], and 1 where `TOLERANCE` says so."""
    products = np.where(products >= 1 - TOLERANCE, np.float32(1), products)
    return np.maximum(products, np.float32(-1))


def lowest_similarities(index: JoinedIndex, groups: Sequence[np.ndarray]) -> np.ndarray:
    """The least similarity of any two photos of each group, float32 [G].

    Args:
        index: the collections.
        groups: of each, ascending rows.
    """
    return np.array([_lowest(index, group) for group in groups], np.float32)


def _lowest(index: JoinedIndex, group: np.ndarray) -> float:
    lowest = 1.0
    for first in range(0, len(group), ROWS_AT_ONCE):
        left = index.read_rows(group[first : first + ROWS_AT_ONCE])
        for second in range(first, len(group), ROWS_AT_ONCE):
            same = second == first
            part = group[second : second + ROWS_AT_ONCE]
            right = left if same else index.read_rows(part)
            products = left @ right.T
            if same:
                np.fill_diagonal(products, 1)
            lowest = min(lowest, float(products.min()))
    return float(as_similarities(np.array([lowest], np.float32))[0])
