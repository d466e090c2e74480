"""Retrieval scores, against plain loops."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.data.benchmarks import Benchmark, Protocol
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.retrieval import (
    QueryScore,
    evaluate_retrieval,
    write_per_query_csv,
)


def unit_rows(rng, count, width=5):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def benchmark():
    """Nine queries among twelve images; not every query is in every protocol."""
    rng = np.random.default_rng(3)
    protocols = []
    for name, metrics in (
        ("first", ("map", "mp_at_5", "r_precision", "map_at_r")),
        ("second", ("micro_ap", "recall_at_p90", "threshold_at_p90", "map")),
        ("third", ("micro_ap", "recall_at_1", "recall_at_10")),
    ):
        asked = np.sort(rng.choice(9, 6, replace=False))
        kinds = rng.integers(0, 4, (6, 12))
        kinds[2] = 3  # nothing to find
        protocols.append(
            Protocol(
                name,
                metrics,
                asked,
                [np.flatnonzero(row == 0) for row in kinds],
                [np.flatnonzero(row == 1) for row in kinds],
                normalized=name == "third",
            )
        )
    return Benchmark(
        name="mine",
        root=Path("/data"),
        paths=[f"/data/{n}.jpg" for n in range(21)],
        queries=np.arange(12, 21),
        database=np.arange(12),
        protocols=protocols,
    )


@pytest.fixture
def descriptors():
    rng = np.random.default_rng(4)
    return {name: unit_rows(rng, n) for name, n in (("q", 9), ("x", 12), ("t", 7))}


def loop_results(benchmark, similarity, offsets, max_candidates):
    """Every protocol by walking down sorted lists."""
    results = {}
    for protocol in benchmark.protocols:
        precisions, at_five, pairs, total = [], [], [], 0
        among_r, at_r = [], []
        for number, query in enumerate(protocol.queries):
            positives, junk = protocol.positives[number], protocol.junk[number]
            row = similarity[query] - protocol.normalized * offsets[query]
            order = sorted(set(range(12)) - set(junk), key=lambda i: (-row[i], i))
            pairs += [(-row[i], query, i, i in positives) for i in order]
            total += len(positives)
            if not len(positives):
                continue
            ranks = [rank for rank, image in enumerate(order) if image in positives]
            parts = [
                ((n / r if r else 1) + (n + 1) / (r + 1)) / 2
                for n, r in enumerate(ranks)
            ]
            precisions.append(sum(parts) / len(ranks))
            among_r.append(0)
            at_r.append(0)
            for place in range(len(ranks)):
                if order[place] in positives:
                    among_r[-1] += 1 / len(ranks)
                    at_r[-1] += among_r[-1] / (place + 1)
            looked_at = min(5, ranks[-1] + 1)
            at_five.append(sum(rank < looked_at for rank in ranks) / looked_at)
        pairs = sorted(pairs)[:max_candidates]
        right = [pair[3] for pair in pairs]
        precision = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))]
        seen, ranks = dict.fromkeys(range(9), 0), []
        for _, query, _, is_right in pairs:
            ranks += [seen[query]] if is_right else []
            seen[query] += 1
        best = [n for n, p in enumerate(precision) if p >= 0.9 and right[n]]
        values = {
            "map": np.mean(precisions),
            "mp_at_5": np.mean(at_five),
            "r_precision": np.mean(among_r),
            "map_at_r": np.mean(at_r),
            "micro_ap": sum(p for p, r in zip(precision, right, strict=True) if r)
            / total,
            "recall_at_p90": sum(right[: best[-1] + 1]) / total if best else 0,
            "recall_at_1": ranks.count(0) / total,
            "recall_at_10": sum(rank < 10 for rank in ranks) / total,
            "threshold_at_p90": -pairs[best[-1]][0] if best else None,
        }
        for metric in protocol.metrics:
            if values[metric] is not None:
                results[f"mine/{protocol.name}/{metric}"] = values[metric]
    return results


def evaluate_plainly(benchmark, queries, database):
    """Without a training set to normalise scores by."""
    return evaluate_retrieval(
        benchmark,
        queries,
        database,
        training=None,
        normalization_weight=2.0,
        normalization_neighbours=10,
    )


@pytest.mark.parametrize("block_bytes", [1, 4 * 12 * 2, 1 << 20])
@pytest.mark.parametrize("max_candidates", [20, 1000])
@pytest.mark.parametrize("reduction", ["nth", "mean"])
def test_scores_equal_loops(
    benchmark, descriptors, block_bytes, max_candidates, reduction
):
    similarity = descriptors["q"] @ descriptors["x"].T
    nearest = np.sort(descriptors["q"] @ descriptors["t"].T, axis=1)[:, -3:]
    offsets = 1.5 * (nearest[:, 0] if reduction == "nth" else nearest.mean(axis=1))
    scores = evaluate_retrieval(
        benchmark,
        descriptors["q"],
        descriptors["x"],
        training=descriptors["t"],
        normalization_weight=1.5,
        normalization_neighbours=3,
        normalization_reduction=reduction,
        max_candidates=max_candidates,
        block_bytes=block_bytes,
    )
    expected = loop_results(benchmark, similarity, offsets, max_candidates)
    assert list(scores.results) == list(expected)
    # The third of each protocol's queries, at least, has nothing to find.
    assert scores.num_without_positives == {
        f"mine/{protocol.name}": sum(not len(found) for found in protocol.positives)
        for protocol in benchmark.protocols
    }
    assert min(scores.num_without_positives.values()) >= 1
    assert scores.results == pytest.approx(expected, abs=1e-6)
    precisions = [q.average_precision for q in scores.queries if q.protocol == "first"]
    assert len(precisions) == 5
    assert np.mean(precisions) == pytest.approx(expected["mine/first/map"])


def test_unreadable_images_are_not_found_and_find_nothing(benchmark, descriptors):
    protocol = Protocol(
        "one",
        ("map", "micro_ap"),
        np.array([0, 1]),
        [np.array([3, 5]), np.array([3])],
        [np.empty(0, np.int64)] * 2,
    )
    one = dataclasses.replace(benchmark, protocols=[protocol])
    queries, database = descriptors["q"].copy(), -np.abs(descriptors["x"])
    queries[0] = np.abs(queries[0])  # everything is less like it than zeros are
    database[3], queries[1] = 0, 0
    scores = evaluate_plainly(one, queries, database)
    first, second = scores.queries
    row = database @ queries[0]
    rank = sum(value > row[5] for value in np.delete(row, 3))
    expected = ((1.0 if rank == 0 else 0.0) + 1 / (rank + 1)) / 2 / 2
    assert first[:4] == ("one", 0, pytest.approx(expected), 2)
    assert first.first_rank == rank
    assert second == QueryScore("one", 1, 0.0, 1, None)
    assert scores.results["mine/one/map"] == pytest.approx(expected / 2)
    # The pairs of unreadable images are no candidates, even where there is room.
    assert scores.results["mine/one/micro_ap"] == pytest.approx(1 / (rank + 1) / 3)


def test_unreadable_training_images_count_for_nothing(benchmark, descriptors):
    # Opposite to all queries: zeros would be nearer.
    queries, training = np.abs(descriptors["q"]), -np.abs(descriptors["t"])

    def score(training, neighbours):
        return evaluate_retrieval(
            benchmark,
            queries,
            descriptors["x"],
            training=training,
            normalization_weight=2.0,
            normalization_neighbours=neighbours,
        ).results

    damaged = np.insert(training, [0, 3, 7], 0, axis=0)
    assert score(damaged, 3) == score(training, 3)
    assert score(damaged, 7) == score(training, 7)
    for rows in (training, damaged):
        with pytest.raises(InputError, match=r"found 8, expected 1 to 7, .* read; low"):
            score(rows, 8)


def test_wrong_numbers_of_descriptors_are_refused(benchmark, descriptors):
    with pytest.raises(ValueError, match="queries: 8 descriptors, expected 9"):
        evaluate_plainly(benchmark, descriptors["q"][1:], descriptors["x"])
    with pytest.raises(ValueError, match="database: 7 descriptors, expected 12"):
        evaluate_plainly(benchmark, descriptors["q"], descriptors["t"])
    with pytest.raises(ValueError, match="training: found None"):
        evaluate_plainly(benchmark, descriptors["q"], descriptors["x"])


def test_every_query_is_a_row_of_the_csv(benchmark, tmp_path):
    paths = list(benchmark.paths)
    paths[12] = '/data/=HYPERLINK("x").jpg'
    paths[13] = '/elsewhere/a, "b"\n.jpg'
    paths[14] = "/data/\udcff.jpg"
    named = dataclasses.replace(benchmark, paths=paths)
    rows = [
        QueryScore("first", 0, 0.25, 3, 4),
        QueryScore("first", 1, 0.0, 1, None),
        QueryScore("second", 2, 1.0, 1, 0),
    ]
    write_per_query_csv(tmp_path / "per_query.csv", named, rows)
    text = (tmp_path / "per_query.csv").read_bytes().decode()
    found = list(csv.reader(io.StringIO(text, "")))
    assert found == [
        ["protocol", "query", "ap", "num_positives", "first_positive_rank"],
        ["first", '\'=HYPERLINK("x").jpg', "0.25", "3", "5"],
        ["first", '/elsewhere/a, "b"\n.jpg', "0.0", "1", ""],
        ["second", r"\xff.jpg", "1.0", "1", "1"],
    ]
