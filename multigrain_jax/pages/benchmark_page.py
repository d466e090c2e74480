"""report.html of a retrieval benchmark."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from multigrain_jax.data.benchmarks import Benchmark, BenchmarkSource, Protocol
from multigrain_jax.data.decoding import PLAIN, VIEWER
from multigrain_jax.evaluation.retrieval import QueryScore, RetrievalScores
from multigrain_jax.pages.gallery import (
    GalleryItem,
    GalleryRow,
    LazyRows,
    Verdict,
    photos_of,
)
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.page import Result

NEIGHBOURS_PER_QUERY = 10
# metric -> what it means, and the best that it can be
METRICS: Mapping[str, tuple[str, float]] = {
    "map": ("mean average precision over the queries", 1.0),
    "mp_at_1": ("share of queries whose first image is a right one", 1.0),
    "mp_at_5": ("mean share of right images among the first five", 1.0),
    "mp_at_10": ("mean share of right images among the first ten", 1.0),
    "r_precision": ("mean share of right images among the R first, of R right", 1.0),
    "map_at_r": ("mean precision at the right images among the R first", 1.0),
    "score": ("mean number of right images among the first four", 4.0),
    "micro_ap": ("average precision of all queries' candidates, ranked together", 1.0),
    "recall_at_1": ("share of right pairs that are the first of their query", 1.0),
    "recall_at_10": ("share of right pairs among the first ten of their query", 1.0),
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
    circumstances: Sequence[str],
) -> None:
    """Write the scores, their distribution and the queries with what they found.

    Args:
        path: the file, replaced if it exists.
        benchmark: what is right.
        queries: float32 [Q, D], of the benchmark's queries.
        database: float32 [N, D], of its database.
        scores: from `evaluate_retrieval` of these descriptors.
        subtitle: a line below the title.
        circumstances: lines about what scores cannot be compared with, and why.
    """
    results = []
    for name, value in scores.results.items():
        explanation, best = METRICS[name.split("/")[-1]]
        results.append(Result(name, value, explanation, best=best))
    without = ", ".join(
        f"{number} ({name})" if len(scores.num_without_positives) > 1 else str(number)
        for name, number in scores.num_without_positives.items()
    )
    told = "".join(f" {line[:1].upper()}{line[1:]}." for line in circumstances)
    write_retrieval_page(
        path,
        title=f"Retrieval: {benchmark.name}",
        subtitle=subtitle,
        results=results,
        average_precisions=np.array(
            [score.average_precision for score in scores.queries]
        ),
        rows=_rows(benchmark, queries, database, scores.queries),
        note="Ignored images do not count for a query, which itself is mostly one of "
        "them. Similarities are not normalised. Queries that have no positive and are "
        f"not shown: {without}.{told}",
    )


def _rows(
    benchmark: Benchmark,
    queries: np.ndarray,
    database: np.ndarray,
    scores: Sequence[QueryScore],
) -> LazyRows:
    """A row for each query of each protocol."""
    is_own = benchmark.apply_exif_orientation
    load = photos_of(BenchmarkSource(benchmark, VIEWER if is_own else PLAIN))
    protocols = {protocol.name: protocol for protocol in benchmark.protocols}
    absent = ~np.any(database, axis=1)

    def item(
        index: int, similarity: float | None, verdict: Verdict, suffix: str = ""
    ) -> GalleryItem:
        title = benchmark.image_name(index) + suffix
        path = str(benchmark.paths[index])
        return GalleryItem(partial(load, index), title, similarity, verdict, path)

    def make_row(number: int) -> GalleryRow:
        score = scores[number]
        similarity = database @ queries[score.query]
        similarity[absent] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[:NEIGHBOURS_PER_QUERY]
        verdicts = _verdicts(protocols[score.protocol], score.query, nearest)
        suffix = f" ({score.protocol})" if len(protocols) > 1 else ""
        return GalleryRow(
            item(int(benchmark.queries[score.query]), None, "query", suffix),
            [
                item(
                    int(benchmark.database[position]),
                    float(similarity[position]),
                    verdict,
                )
                for position, verdict in zip(nearest, verdicts, strict=True)
                if np.isfinite(similarity[position])
            ],
            score.average_precision,
        )

    return LazyRows(len(scores), make_row)


def _verdicts(protocol: Protocol, query: int, positions: np.ndarray) -> list[Verdict]:
    number = int(np.flatnonzero(protocol.queries == query)[0])
    junk = np.isin(positions, protocol.junk[number])
    right = np.isin(positions, protocol.positives[number])
    # Junk does not count, right or not.
    verdicts = np.where(junk, "ignored", np.where(right, "right", "wrong"))
    return verdicts.tolist()
