"""report.html of a retrieval benchmark."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.data.benchmarks import Benchmark, BenchmarkSource, Protocol
from multigrain_jax.evaluation.retrieval import RetrievalScores
from multigrain_jax.pages.gallery import (
    GalleryItem,
    GalleryRow,
    Verdict,
    load_photo_of,
)
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.page import Result

NUM_NEIGHBOURS = 10
# metric -> what it means, and the best that it can be
METRICS: Mapping[str, tuple[str, float]] = {
    "map": ("mean average precision over the queries", 1.0),
    "mp_at_1": ("share of queries whose first image is a right one", 1.0),
    "mp_at_5": ("mean share of right images among the first five", 1.0),
    "mp_at_10": ("mean share of right images among the first ten", 1.0),
    "score": ("mean number of right images among the first four", 4.0),
    "micro_ap": ("average precision of all queries' candidates, ranked together", 1.0),
    "recall_at_p90": ("share of right pairs found at a precision of 90 %", 1.0),
    "threshold_at_p90": (
        "similarity from which on 90 % of the pairs are right: a threshold for copies",
        1.0,
    ),
}


def write_benchmark_page(
    path: Path,
    benchmark: Benchmark,
    queries: np.ndarray,
    database: np.ndarray,
    scores: RetrievalScores,
    *,
    subtitle: str,
) -> None:
    """Write the scores, their distribution and the queries with what they found.

    Args:
        path: the file, replaced if it exists.
        benchmark: what is right.
        queries: float32 [Q, D], of the benchmark's queries.
        database: float32 [N, D], of its database.
        scores: from `evaluate_retrieval` of these descriptors.
        subtitle: a line below the title.
    """
    results = []
    for name, value in scores.results.items():
        explanation, best = METRICS[name.split("/")[-1]]
        results.append(Result(name, value, explanation, best=best))
    write_retrieval_page(
        path,
        title=f"Retrieval: {benchmark.name}",
        subtitle=subtitle,
        results=results,
        average_precisions=np.array(
            [score.average_precision for score in scores.queries]
        ),
        rows=_Rows(benchmark, queries, database, scores),
        note="Ignored images do not count for a query, which itself is mostly one of "
        "them. Similarities are not normalised.",
    )


class _Rows(Sequence[GalleryRow]):
    """The rows of the page, made when they are asked for."""

    def __init__(
        self,
        benchmark: Benchmark,
        queries: np.ndarray,
        database: np.ndarray,
        scores: RetrievalScores,
    ):
        self._benchmark = benchmark
        self._queries = queries
        self._database = database
        self._scores = scores.queries
        self._source = BenchmarkSource(benchmark)
        self._protocols = {protocol.name: protocol for protocol in benchmark.protocols}
        self._absent = ~np.any(database, axis=1)

    def __len__(self) -> int:
        return len(self._scores)

    def __getitem__(self, number: Any) -> Any:
        score = self._scores[number]
        benchmark = self._benchmark
        protocol = self._protocols[score.protocol]
        similarity = self._database @ self._queries[score.query]
        similarity[self._absent] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[:NUM_NEIGHBOURS]
        verdicts = _verdicts(protocol, score.query, nearest)
        suffix = f" ({protocol.name})" if len(self._protocols) > 1 else ""
        query = int(benchmark.queries[score.query])
        return GalleryRow(
            self._item(query, None, "query", suffix),
            [
                self._item(
                    int(benchmark.database[position]),
                    float(similarity[position]),
                    verdict,
                )
                for position, verdict in zip(nearest, verdicts, strict=True)
                if np.isfinite(similarity[position])
            ],
            score.average_precision,
        )

    def _item(
        self, index: int, similarity: float | None, verdict: Verdict, suffix: str = ""
    ) -> GalleryItem:
        title = self._benchmark.image_name(index) + suffix
        return GalleryItem(
            partial(load_photo_of, self._source, index), title, similarity, verdict
        )


def _verdicts(protocol: Protocol, query: int, positions: np.ndarray) -> list[Verdict]:
    number = int(np.flatnonzero(protocol.queries == query)[0])
    junk = np.isin(positions, protocol.junk[number])
    right = np.isin(positions, protocol.positives[number])
    return [
        "ignored" if is_junk else "right" if is_right else "wrong"
        for is_junk, is_right in zip(junk, right, strict=True)
    ]
