"""report.html of a retrieval benchmark."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

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


class Metric(NamedTuple):
    """What a page says about a metric.

    Attributes:
        title: its name in words.
        explanation: what it means.
        best: the best that it can be; None for what is no score.
    """

    title: str
    explanation: str
    best: float | None = 1.0


METRICS: Mapping[str, Metric] = {
    "map": Metric(
        "Mean average precision",
        "how far up the right images stand in what a query finds, over all queries",
    ),
    "mp_at_1": Metric(
        "Right at first", "share of queries whose first image is a right one"
    ),
    "mp_at_5": Metric(
        "Right among five", "mean share of right images among the first five"
    ),
    "mp_at_10": Metric(
        "Right among ten", "mean share of right images among the first ten"
    ),
    "r_precision": Metric(
        "R-precision", "mean share of right images among the R first, of R right"
    ),
    "map_at_r": Metric(
        "Mean average precision of the first R",
        "mean precision at the right images among the R first, of R right",
    ),
    "score": Metric(
        "Right among four", "mean number of right images among the first four", 4.0
    ),
    "micro_ap": Metric(
        "Average precision over all",
        "average precision of all queries' candidates, ranked together",
    ),
    "recall_at_1": Metric(
        "Found at first", "share of right pairs that are the first of their query"
    ),
    "recall_at_10": Metric(
        "Found among ten", "share of right pairs among the first ten of their query"
    ),
    "recall_at_p90": Metric(
        "Found with 90 % right", "share of right pairs found at a precision of 90 %"
    ),
    "threshold_at_p90": Metric(
        "Threshold for copies",
        "the similarity from which on 90 % of the pairs are right; no score",
        None,
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
    results = [_result(name, value) for name, value in scores.results.items()]
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


def _result(name: str, value: float) -> Result:
    _benchmark, *protocol, metric = name.split("/")
    title, explanation, best = METRICS[metric]
    title += "".join(f", {part}" for part in protocol)
    return Result(name, value, explanation, best=best, title=title)


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
        is_readable = bool(np.any(queries[score.query]))
        return GalleryRow(
            item(int(benchmark.queries[score.query]), None, "query", suffix),
            [
                item(
                    int(benchmark.database[position]),
                    float(similarity[position]),
                    verdict,
                )
                for position, verdict in zip(nearest, verdicts, strict=True)
                if is_readable and np.isfinite(similarity[position])
            ],
            score.average_precision,
            note="" if is_readable else "not readable: it was compared with nothing",
            is_readable=is_readable,
        )

    return LazyRows(len(scores), make_row)


def _verdicts(protocol: Protocol, query: int, positions: np.ndarray) -> list[Verdict]:
    number = int(np.flatnonzero(protocol.queries == query)[0])
    junk = np.isin(positions, protocol.junk[number])
    right = np.isin(positions, protocol.positives[number])
    # Junk does not count, right or not.
    verdicts = np.where(junk, "ignored", np.where(right, "right", "wrong"))
    return verdicts.tolist()
