"""Exact nearest neighbours for a page: of one query, within a part of a collection."""

import copy
import threading
from typing import NamedTuple

import numpy as np

from multigrain_jax.browse.collection import Collection
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.errors import InputError
from multigrain_jax.ops.refinement import indices_of_largest

# Up to here all descriptors are kept in memory as float32; larger collections are read
# from their files for every search.
RESIDENT_BYTES = 2 << 30
READ_ROWS = 16_384
# Links to photos that were found already: so many more are looked at first.
SPARE = 16


class Neighbour(NamedTuple):
    """A photo that was found."""

    row: int
    similarity: float


class NeighbourSearch:
    """Finds the most similar photos of a collection, exactly."""

    def __init__(self, collection: Collection, *, resident_bytes: int = RESIDENT_BYTES):
        """Read the descriptors, where they fit.

        Args:
            collection: what is searched.
            resident_bytes: what they may take in memory.
        """
        self._collection = collection
        # The files are read by one search at a time.
        self._turn = threading.Lock()
        index = collection.index
        self._matrix: np.ndarray | None = None
        if 4 * len(index) * index.dim <= resident_bytes:
            self._matrix = np.empty((len(index), index.dim), np.float32)
            for first in range(0, len(index), READ_ROWS):
                count = min(READ_ROWS, len(index) - first)
                self._matrix[first : first + count] = index.read(first, count)

    def descriptor(self, row: int) -> np.ndarray:
        """The descriptor of a row: float32 [D]."""
        return self.descriptors(np.array([row]))[0]

    def descriptors(self, rows: np.ndarray) -> np.ndarray:
        """The descriptors of some rows: float32 [n, D]."""
        if self._matrix is not None:
            return self._matrix[rows]
        index = self._collection.index
        parts = [index.read(int(row), 1) for row in rows]
        return np.concatenate(parts).astype(np.float32)

    def find(
        self,
        descriptor: np.ndarray,
        count: int,
        *,
        within: np.ndarray,
        without: int | None = None,
    ) -> list[Neighbour]:
        """The photos of largest inner product, the largest first; of links one.

        Args:
            descriptor: [D], finite.
            count: how many at most.
            within: bool [N], the rows that can be found.
            without: a row whose photo is not to be found, under no name.

        Raises:
            InputError: a descriptor of another width, or not finite.
        """
        query = np.asarray(descriptor, np.float32)
        dim = self._collection.index.dim
        if query.shape != (dim,) or not np.isfinite(query).all():
            raise InputError(
                f"descriptor: found shape {list(query.shape)}, expected {dim} finite "
                "numbers, as the collection was embedded; use /api/embed"
            )
        total = int(within.sum())
        seen: set[object] = set()
        if without is not None:
            seen.add(identity_of(self._collection.path(without)))
        hidden = frozenset(seen)
        wanted = min(total, count + SPARE)
        while True:
            similarities, rows = self._search(query, wanted, within)
            seen, found = set(hidden), []
            for row, similarity in zip(rows, similarities, strict=True):
                identity = identity_of(self._collection.path(row))
                if identity not in seen:
                    seen.add(identity)
                    found.append(Neighbour(row, similarity))
            if len(found) >= count or wanted >= total:
                return found[:count]
            wanted = min(total, 4 * wanted)

    def _search(
        self, query: np.ndarray, count: int, within: np.ndarray
    ) -> tuple[list[float], list[int]]:
        if not count:
            return [], []
        if self._matrix is None:
            # Another set of rows that can be found, over the same open files.
            view = copy.copy(self._collection.index)
            view.live = within
            with self._turn:
                similarities, rows = view.search(query[None], count)
            return similarities[0].tolist(), rows[0].tolist()
        similarities = np.where(within, self._matrix @ query, -np.inf)
        best = indices_of_largest(similarities, count)
        return similarities[best].tolist(), best.tolist()
