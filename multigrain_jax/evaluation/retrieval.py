"""From descriptors to a benchmark's scores.

All of it in NumPy, in blocks of queries. Beside the descriptors it takes about four
times `SIMILARITY_BYTES` of memory, or four rows of similarities where these are larger.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.benchmarks import Benchmark, Protocol
from multigrain_jax.ops.ranking import (
    average_precision,
    map_at_r,
    micro_average_precision,
    precision_at_k,
    r_precision,
    ranks_in_row,
    recall_at_precision,
    recall_at_rank,
    threshold_at_precision,
    ukbench_score,
)
from multigrain_jax.ops.refinement import (
    SIMILARITY_BYTES,
    Reduction,
    indices_of_largest,
    normalize_scores,
    query_blocks,
)
from multigrain_jax.workdir import write_table

MAX_CANDIDATES = 500_000  # the best pairs of all queries, which micro scores rank

# metric -> one query's score, from its positives' ranks and their number
PER_QUERY: Mapping[str, Callable[[np.ndarray, int], float]] = {
    "map": average_precision,
    "mp_at_1": lambda ranks, _: precision_at_k(ranks, 1),
    "mp_at_5": lambda ranks, _: precision_at_k(ranks, 5),
    "mp_at_10": lambda ranks, _: precision_at_k(ranks, 10),
    "score": lambda ranks, _: ukbench_score(ranks),
    "r_precision": r_precision,
    "map_at_r": map_at_r,
}


class Candidates(NamedTuple):
    """The best pairs of all queries and the database.

    Attributes:
        scores: float32 [C].
        correct: bool [C], whether a pair is one of the positives.
        queries: int64 [C], the query of each pair.
        num_positives: how many there are, candidates or not.
    """

    scores: np.ndarray
    correct: np.ndarray
    queries: np.ndarray
    num_positives: int


def _recall_at_rank(k: int, c: Candidates) -> float:
    return recall_at_rank(
        c.scores, c.correct, c.queries, num_positives=c.num_positives, k=k
    )


# metric -> the score of all queries' candidates
OVER_ALL: Mapping[str, Callable[[Candidates], float | None]] = {
    "micro_ap": lambda c: micro_average_precision(
        c.scores, c.correct, num_positives=c.num_positives
    ),
    "recall_at_p90": lambda c: recall_at_precision(
        c.scores, c.correct, num_positives=c.num_positives, precision=0.9
    ),
    "threshold_at_p90": lambda c: threshold_at_precision(
        c.scores, c.correct, precision=0.9
    ),
    "recall_at_1": partial(_recall_at_rank, 1),
    "recall_at_10": partial(_recall_at_rank, 10),
}


class QueryScore(NamedTuple):
    """How one query fared.

    Attributes:
        protocol: the protocol's name.
        query: its position among the benchmark's queries.
        average_precision: in [0, 1].
        num_positives: how many images should be found.
        first_rank: 0-based rank of the first one; None if none was found.
    """

    protocol: str
    query: int
    average_precision: float
    num_positives: int
    first_rank: int | None


class RetrievalScores(NamedTuple):
    """A benchmark's scores.

    Attributes:
        results: by the names that results.json has.
        queries: every query with positives, of one protocol after the other.
        num_without_positives: of each protocol's queries, by its part of those names.
    """

    results: dict[str, float]
    queries: list[QueryScore]
    num_without_positives: dict[str, int]


def evaluate_retrieval(
    benchmark: Benchmark,
    queries: np.ndarray,
    database: np.ndarray,
    *,
    training: np.ndarray | None,
    normalization_weight: float,
    normalization_neighbours: int,
    normalization_reduction: Reduction = "nth",
    max_candidates: int = MAX_CANDIDATES,
    block_bytes: int = SIMILARITY_BYTES,
) -> RetrievalScores:
    """Score every protocol of a benchmark.

    The similarity is the inner product in float32; ties are broken in index order. A
    descriptor of zeros is that of an image that could not be read: it is not found, as
    a query finds nothing, and is no training image. Queries without positives are left
    out.

    Args:
        benchmark: what is right.
        queries: float32 [Q, D], of the benchmark's queries.
        database: float32 [N, D], of its database.
        training: float32 [T, D], of its training set, by which a protocol may
            normalise scores; None where none does.
        normalization_weight: as of `normalize_scores`.
        normalization_neighbours: as of `normalize_scores`.
        normalization_reduction: as of `normalize_scores`.
        max_candidates: how many pairs the micro scores rank.
        block_bytes: size of the similarities that are computed at once.

    Raises:
        ValueError: descriptors of other numbers than the benchmark's.
        InputError: scores are to be normalised, by fewer training images that could be
            read than `normalization_neighbours`.
    """
    for what, found, wanted in (
        ("queries", queries, benchmark.queries),
        ("database", database, benchmark.database),
    ):
        if len(found) != len(wanted):
            raise ValueError(
                f"{what}: {len(found)} descriptors, expected {len(wanted)}, one for "
                "each image of the benchmark; zeros stand for unreadable ones"
            )
    tallies = [
        _Tally(protocol, len(database), max_candidates)
        for protocol in benchmark.protocols
    ]
    if training is None and any(tally.protocol.normalized for tally in tallies):
        raise ValueError(
            "training: found None, expected descriptors, since a protocol normalises "
            "scores; give those of benchmark.training"
        )
    absent = np.flatnonzero(~np.any(database, axis=1))
    known = () if training is None else np.flatnonzero(np.any(training, axis=1))
    for rows in query_blocks(queries, (database, training), block_bytes):
        block = queries[rows]
        similarity = block @ database.T
        similarity[:, absent] = -np.inf
        similarity[~np.any(block, axis=1)] = -np.inf
        for tally in tallies:
            scores = similarity
            if tally.protocol.normalized:
                assert training is not None
                scores = normalize_scores(
                    similarity,
                    # Taken of a block: no copy of all descriptors is made.
                    (block @ training.T)[:, known],
                    weight=normalization_weight,
                    num_neighbours=normalization_neighbours,
                    reduction=normalization_reduction,
                )
            tally.add(rows.start, scores)
    results: dict[str, float] = {}
    without: dict[str, int] = {}
    for tally in tallies:
        name = "/".join(filter(None, (benchmark.name, tally.protocol.name)))
        without[name] = len(tally.protocol.queries) - len(tally.seen)
        results |= {
            f"{name}/{metric}": value for metric, value in tally.results().items()
        }
    seen = [score for tally in tallies for score in tally.seen]
    return RetrievalScores(results, seen, without)


class _Tally:
    """Gathers one protocol's scores from blocks of queries."""

    def __init__(self, protocol: Protocol, num_database: int, max_candidates: int):
        self.protocol = protocol
        self.seen: list[QueryScore] = []
        self._numbers = {int(q): n for n, q in enumerate(protocol.queries)}
        self._num_database = num_database
        self._per_query = [name for name in protocol.metrics if name in PER_QUERY]
        self._over_all = [name for name in protocol.metrics if name in OVER_ALL]
        self._values: dict[str, list[float]] = {name: [] for name in self._per_query}
        self._max_candidates = max_candidates
        # (score, query · N + database image), the best first
        self._candidates = (np.empty(0, np.float32), np.empty(0, np.int64))

    def add(self, first_query: int, scores: np.ndarray) -> None:
        """Score the queries from `first_query` on; scores is [block, N]."""
        keep = []
        for row, similarity in enumerate(scores):
            number = self._numbers.get(first_query + row)
            if number is not None:
                keep.append(row)
                self._add_query(number, similarity)
        if self._over_all and keep:
            block = scores[keep]
            queries = first_query + np.array(keep)
            for row, query in enumerate(queries):
                block[row, self.protocol.junk[self._numbers[int(query)]]] = -np.inf
            self._add_candidates(block, queries)

    def results(self) -> dict[str, float]:
        """The protocol's metrics, in its order; thresholds only where there is one."""
        values: dict[str, float | None] = {
            name: _mean(v) for name, v in self._values.items()
        }
        if self._over_all:
            scores, pairs = self._candidates
            wanted = self._positive_pairs()
            candidates = Candidates(
                scores,
                np.isin(pairs, wanted),
                pairs // self._num_database,
                len(wanted),
            )
            for name in self._over_all:
                values[name] = OVER_ALL[name](candidates)
        return {
            name: value
            for name in self.protocol.metrics
            if (value := values[name]) is not None
        }

    def _add_query(self, number: int, similarity: np.ndarray) -> None:
        positives, junk = self.protocol.positives[number], self.protocol.junk[number]
        num_positives = len(np.setdiff1d(positives, junk))
        if not num_positives:
            return
        ranks = ranks_in_row(similarity, positives, junk)
        for name in self._per_query:
            self._values[name].append(PER_QUERY[name](ranks, num_positives))
        self.seen.append(
            QueryScore(
                self.protocol.name,
                int(self.protocol.queries[number]),
                average_precision(ranks, num_positives),
                num_positives,
                int(ranks[0]) if len(ranks) else None,
            )
        )

    def _add_candidates(self, block: np.ndarray, queries: np.ndarray) -> None:
        scores = block.reshape(-1)
        # Once there are enough, hardly any pair is better than the last of them.
        is_full = len(self._candidates[0]) == self._max_candidates
        better = scores > (self._candidates[0][-1] if is_full else -np.inf)
        if np.count_nonzero(better) > self._max_candidates:
            chosen = indices_of_largest(scores, self._max_candidates)
        else:
            chosen = np.flatnonzero(better)
        row, column = np.divmod(chosen, self._num_database)
        pairs = queries[row] * self._num_database + column
        # Those before come first among equals: their queries do.
        all_scores = np.concatenate([self._candidates[0], scores[chosen]])
        all_pairs = np.concatenate([self._candidates[1], pairs])
        kept = indices_of_largest(all_scores, self._max_candidates)
        self._candidates = (all_scores[kept], all_pairs[kept])

    def _positive_pairs(self) -> np.ndarray:
        pairs = [
            query * self._num_database + np.setdiff1d(positives, junk)
            for query, positives, junk in zip(
                self.protocol.queries,
                self.protocol.positives,
                self.protocol.junk,
                strict=True,
            )
        ]
        return np.concatenate(pairs) if pairs else np.empty(0, np.int64)


def write_per_query_csv(
    path: Path, benchmark: Benchmark, queries: Sequence[QueryScore]
) -> None:
    """Write protocol, query, ap, num_positives and the rank of the first positive.

    Ranks start from 1 here; without a rank, none was found.
    """
    write_table(
        path,
        ["protocol", "query", "ap", "num_positives", "first_positive_rank"],
        (
            [
                score.protocol,
                benchmark.image_name(int(benchmark.queries[score.query])),
                round(score.average_precision, 6),
                score.num_positives,
                "" if score.first_rank is None else score.first_rank + 1,
            ]
            for score in queries
        ),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
