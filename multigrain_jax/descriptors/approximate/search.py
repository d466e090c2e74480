"""Nearest neighbours by an approximate index, ranked by exact inner products.

What the index proposes is read from the descriptors and ranked; rows that it does not
hold yet are searched exactly. So similarities are exact, photos that are gone never
come back, and new ones are always found.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.descriptors.approximate.engine import (
    MAX_CANDIDATES,
    NOTHING,
    Effort,
    Engine,
    shards_and_rows,
)
from multigrain_jax.descriptors.approximate.known import (
    KnownRows,
    known_rows,
    require_rows,
)
from multigrain_jax.descriptors.approximate.record import (
    Record,
    read_record,
    read_rows,
)
from multigrain_jax.descriptors.index import (
    SEARCH_BYTES,
    DescriptorIndex,
    ScoreNormalization,
    offsets_of,
)
from multigrain_jax.errors import InputError

# What descriptors that are ranked take, in float32.
RANKED_BYTES = 64 << 20
QUERIES_AT_ONCE = 256
# An index that its writer replaces meanwhile is opened anew so often.
_ATTEMPTS = 5

# From index.json and the folder to the engine that made it.
OpenEngine = Callable[[Record, Path], Engine]


class ApproximateIndex:
    """A collection of descriptors that is searched through an approximate index.

    Attributes:
        exact: the collection.
        live: bool [N], as `exact` has it.
        dim: D.
        num_new: live rows that the index does not hold, searched exactly.
    """

    def __init__(
        self,
        exact: DescriptorIndex,
        record: Record,
        engine: Engine,
        *,
        folder: Path,
        effort: Effort,
    ):
        """Compare the index with the collection as it is now.

        Args:
            exact: the collection.
            record: what index.json says.
            engine: of the index.
            folder: of the index.
            effort: how thoroughly it is searched.

        Raises:
            InputError: the index is of other descriptors, or damaged.
        """
        self.exact = exact
        self.live = exact.live
        self.dim = exact.dim
        self._record, self._engine, self._effort = record, engine, effort
        self._known: KnownRows = known_rows(record, exact, folder=folder)
        held = np.zeros(self._known.num_rows, bool)
        for part in record.parts:
            start, end = self._known.bounds[[part.first_shard, part.end_shard]]
            held[start:end] = read_rows(folder, part, int(end - start))
        self._new, self._new_rows = self._not_held(held)
        self.num_new = 0 if self._new is None else int(self._new.live.sum())
        self._trust_shards()

    def __len__(self) -> int:
        """N: rows of the collection, those that are not live among them."""
        return len(self.exact)

    def paths(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """The image that each row belongs to."""
        return self.exact.paths(rows)

    def read(self, first: int, count: int) -> np.ndarray:
        """Descriptors of consecutive rows, as `DescriptorIndex.read`."""
        return self.exact.read(first, count)

    def search(
        self,
        descriptors: np.ndarray,
        k: int,
        *,
        normalization: ScoreNormalization | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """About the k rows of largest inner product, as `DescriptorIndex.search`.

        Where more candidates would be needed than an engine gives, the search is exact.

        Args:
            descriptors: [Q, D] queries.
            k: how many, at least 1.
            normalization: of the similarities; the order of one query's rows stays.

        Returns:
            Similarities float32 [Q, k], exact and descending, and rows int64 [Q, k].
            Where fewer are found, -inf and -1.

        Raises:
            InputError: queries of another width, or not finite.
        """
        count = max(k, self._effort.num_candidates)
        if count > MAX_CANDIDATES:
            return self.exact.search(descriptors, k, normalization=normalization)
        queries = self.exact.checked(descriptors)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), NOTHING, np.int64)
        block = max(1, RANKED_BYTES // (4 * self.dim * count))
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part = queries[first : first + QUERIES_AT_ONCE]
            candidates = self._candidates(part, count, k)
            for start in range(0, len(part), block):
                own = slice(start, start + block)
                places = slice(first + start, first + start + len(part[own]))
                similarities[places], rows[places] = self._ranked(
                    part[own], candidates[own], k
                )
        if normalization is not None:
            offsets = offsets_of(queries, normalization, SEARCH_BYTES)
            similarities -= offsets[:, None]
        return similarities, rows

    def close(self) -> None:
        """Let go of the engine."""
        self._engine.close()

    def _not_held(self, held: np.ndarray) -> tuple[DescriptorIndex | None, np.ndarray]:
        """The shards with rows that the index lacks, and their rows' numbers."""
        missing = self._known.live_rows & ~held
        opened = self.exact.opened
        assert opened is not None  # it was opened from a folder
        places = {start: n for n, start in enumerate(self._shard_starts())}
        shards, live, rows = [], [], []
        for shard, start in enumerate(self._known.starts.tolist()):
            own = missing[self._known.bounds[shard] : self._known.bounds[shard + 1]]
            if own.any():
                shards.append(opened.shards[places[start]])
                live.append(own)
                rows.append(start + np.arange(len(own)))
        if not shards:
            return None, np.zeros(0, np.int64)
        index = DescriptorIndex(shards, live=np.concatenate(live))
        return index, np.concatenate(rows)

    def _shard_starts(self) -> list[int]:
        return [start for start in self._known.starts.tolist() if start >= 0]

    def _trust_shards(self) -> None:
        """Spare those shards their digest that are as they were when it was compared.

        A few rows of each are read: all of each for that would take as long as to
        search it.
        """
        opened = self.exact.opened
        assert opened is not None  # it was opened from a folder
        there = [n for n, start in enumerate(self._known.starts) if start >= 0]
        for shard, number in zip(opened.shards, there, strict=True):
            known = self._record.mtimes_ns
            if number < len(known) and known[number] == self._known.mtimes_ns[number]:
                shard.trust()

    def _candidates(self, queries: np.ndarray, count: int, k: int) -> np.ndarray:
        """Rows of the collection that may be the nearest, int64 [Q, n]; or -1."""
        numbers = self._engine.search(
            self._record.parts, queries, k=count, effort=self._effort
        )
        shards, rows = shards_and_rows(numbers)
        # What no shard of the collection has is nothing, whatever an engine says.
        fits = (numbers >= 0) & (shards < self._known.num_shards)
        shards = np.where(fits, shards, 0)
        lengths = np.diff(self._known.bounds)
        fits &= (self._known.starts[shards] >= 0) & (rows < lengths[shards])
        found = np.where(fits, self._known.starts[shards] + rows, NOTHING)
        found[found >= 0] = np.where(
            self.live[found[found >= 0]], found[found >= 0], NOTHING
        )
        if self._new is None:
            return found
        _, new = self._new.search(queries, k)
        new = np.where(new >= 0, self._new_rows[new], NOTHING)
        return np.concatenate([found, new], axis=1)

    def _ranked(
        self, queries: np.ndarray, candidates: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of each query's candidates by exact products."""
        distinct = np.unique(candidates[candidates >= 0])
        vectors = self._read_rows(distinct)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), NOTHING, np.int64)
        for number, query in enumerate(queries):
            own = np.unique(candidates[number])
            own = own[own >= 0]
            products = vectors[np.searchsorted(distinct, own)] @ query
            # Equal ones in the order of their rows.
            order = np.argsort(-products, kind="stable")[:k]
            similarities[number, : len(order)] = products[order]
            rows[number, : len(order)] = own[order]
        return similarities, rows

    def _read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Descriptors of ascending rows, float32 [n, D]."""
        opened = self.exact.opened
        assert opened is not None  # it was opened from a folder
        starts = np.array([*self._shard_starts(), len(self)], np.int64)
        places = np.searchsorted(rows, starts)
        vectors = np.empty((len(rows), self.dim), np.float32)
        for shard, start, first, end in zip(
            opened.shards, starts, places[:-1], places[1:], strict=False
        ):
            if end > first:
                vectors[first:end] = shard.open()[rows[first:end] - start]
        return vectors


def open_approximate(
    exact: DescriptorIndex, folder: Path, open_engine: OpenEngine, *, effort: Effort
) -> ApproximateIndex:
    """Open the index in a folder to search a collection.

    Args:
        exact: the collection.
        folder: of the index.
        open_engine: opens the engine that made it.
        effort: how thoroughly it is searched.

    Raises:
        InputError: no index, one of other descriptors, or damage.
    """
    for attempt in range(_ATTEMPTS):
        record = read_record(folder)
        if not record.made:
            raise InputError(
                f"{folder}: an index that was only begun found, one with rows "
                "expected; run the task `index` again (configs/index.py)"
            )
        engine = open_engine(record, folder)
        try:
            index = ApproximateIndex(
                exact, record, engine, folder=folder, effort=effort
            )
            require_rows(engine, record, folder=folder)
            return index
        except InputError:
            engine.close()
            # Its writer has replaced it between the two: then there is another record.
            if attempt + 1 == _ATTEMPTS or read_record(folder) == record:
                raise
        except BaseException:
            engine.close()
            raise
    raise AssertionError  # the last attempt returns or raises
