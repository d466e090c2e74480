"""Rankings with known answers, and scores of them by plain loops."""

from typing import Any

import numpy as np

from multigrain_jax.data.benchmarks import Benchmark
from multigrain_jax.evaluation.retrieval import evaluate_retrieval


def loop_ap(row: np.ndarray, positive: np.ndarray, junk: np.ndarray) -> float:
    """Trapezoid average precision, walking down one ranking."""
    total = int(np.sum(positive & ~junk))
    score, found, rank = 0.0, 0, 0
    for image in sorted(range(len(row)), key=lambda i: (-row[i], i)):
        if junk[image]:
            continue
        if positive[image]:
            before = found / rank if rank else 1.0
            found += 1
            score += (before + found / (rank + 1)) / 2 / total
        rank += 1
    return score


def loop_in_four(row: np.ndarray, positive: np.ndarray, junk: np.ndarray) -> float:
    """How many of the four nearest are right."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return float(sum(positive[image] for image in order[:4]))


def rankings(relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Similarities that rank perfectly, in reverse, and at random with ties."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 0.5, relevant.shape[1])
    return {
        "perfect": relevant - slope,
        "reversed": -relevant - slope,
        "random": rng.integers(1, 4, relevant.shape) / 4,
    }


def scores_of(
    benchmark: Benchmark, similarity: np.ndarray, **more: Any
) -> dict[str, float]:
    """The benchmark's scores where inner products give exactly these similarities."""
    images = np.eye(similarity.shape[1], dtype=np.float32)
    options = {
        "training": None,
        "normalization_weight": 2.0,
        "normalization_neighbours": 10,
    }
    return evaluate_retrieval(
        benchmark, similarity.astype(np.float32), images, **(options | more)
    ).results
