"""What an engine of an approximate index is asked for, and how rows are numbered.

A row has the same number for ever: shards are never written again, and the number says
the shard and the row in it. Numbers of rows in a `DescriptorIndex` change where a shard
is lost.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

_ROW_BITS = 32
# Of a search of the engine, for each query. Milvus has no more.
MAX_CANDIDATES = 16_384
NOTHING = -1


class Stored(NamedTuple):
    """What an engine has written of one part.

    Attributes:
        file: its name in the folder of the index; "" where a server keeps the rows.
        bytes: of the file.
        digest: its SHA-256.
    """

    file: str
    bytes: int
    digest: str


class Part(NamedTuple):
    """Consecutive shards in the index.

    Attributes:
        first_shard: the first of them.
        end_shard: the one behind the last.
        num_rows: rows that the engine holds, those of no live photo among them.
        rows_file: which rows these are, a bit for each row of the shards.
        rows_digest: SHA-256 of that.
        stored: what the engine wrote.
    """

    first_shard: int
    end_shard: int
    num_rows: int
    rows_file: str
    rows_digest: str
    stored: Stored


class Effort(NamedTuple):
    """How thorough a search is: more finds more of the true neighbours, and is slower.

    Attributes:
        num_candidates: rows that are ranked by exact inner products, for each query.
        num_probes: lists that are looked through, of an index of lists.
        ef_search: rows that a walk through a graph (HNSW) keeps, at least
            `num_candidates`.
    """

    num_candidates: int
    num_probes: int
    ef_search: int


# Numbers of rows int64 [n], and their descriptors float32 [n, D].
Rows = tuple[np.ndarray, np.ndarray]


class Engine(Protocol):
    """An approximate index of rows by their numbers."""

    @property
    def in_place(self) -> bool:
        """Whether a killed `update` leaves rows half written; else all is as it was."""
        ...

    @property
    def can_remove(self) -> bool:
        """Whether rows leave a part; else they stay until the part is made anew."""
        ...

    def create(self, sample: np.ndarray, *, num_rows: int) -> dict[str, Any]:
        """Begin anew, with nothing in it; returns what later runs need to know.

        Args:
            sample: rows to learn from, [n, D].
            num_rows: of the whole collection.
        """
        ...

    def update(
        self, part: Part, *, remove: np.ndarray, add: Iterable[Rows], anew: bool
    ) -> Stored:
        """Take rows out of a part and bring others in; on disk once this returns.

        Args:
            part: as it is, with the range of shards that it is to have.
            remove: numbers int64 [n]; those that are not there are passed over.
            add: blocks of rows.
            anew: forget what is in the part first.
        """
        ...

    def search(
        self, parts: Sequence[Part], queries: np.ndarray, *, k: int, effort: Effort
    ) -> np.ndarray:
        """The numbers of about the k nearest rows, int64 [Q, k]; -1 where none is.

        Args:
            parts: all of the index.
            queries: float32 [Q, D].
            k: at most `MAX_CANDIDATES`.
            effort: how thorough.
        """
        ...

    def size(self, parts: Sequence[Part]) -> tuple[int, int]:
        """Rows that the engine counts, and bytes on disk, as far as they are known.

        Args:
            parts: all of the index.
        """
        ...

    def close(self) -> None:
        """Let go of files and servers."""
        ...


def row_numbers(shard: int, rows: np.ndarray) -> np.ndarray:
    """The numbers of rows of a shard, int64."""
    return rows.astype(np.int64) + (shard << _ROW_BITS)


def first_number(shard: int) -> int:
    """The number of a shard's first row."""
    return shard << _ROW_BITS


def shards_and_rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `row_numbers`."""
    return numbers >> _ROW_BITS, numbers & ((1 << _ROW_BITS) - 1)
