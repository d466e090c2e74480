"""What is done to descriptors and to scores before they are ranked."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from multigrain_jax.errors import InputError
from multigrain_jax.ops.pooling import NORM_EPSILON

SIMILARITY_BYTES = 256 << 20  # of similarities that are computed at once

Reduction = Literal["nth", "mean"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def normalize_scores(
    similarity: np.ndarray,
    training_similarity: np.ndarray,
    *,
    weight: float,
    num_neighbours: int,
    reduction: Reduction = "nth",
) -> np.ndarray:
    """Similarities that different queries can be compared by.

    similarity − weight · (the query's n-th largest similarity to images that are known
    to be unrelated, or the mean of its n largest), as `score_offsets` says.

    Args:
        similarity: [Q, N].
        training_similarity: [Q, T], to the unrelated images.
        weight: 2 in the challenge.
        num_neighbours: n, 10 in the challenge; from 1 to T.
        reduction: "nth" as in the challenge, or "mean".

    Raises:
        InputError: fewer than n unrelated images.
    """
    require_neighbours(num_neighbours, training_similarity.shape[1])
    nearest = np.partition(training_similarity, -num_neighbours, axis=1)
    nearest = nearest[:, -num_neighbours:]
    offsets = score_offsets(nearest, weight=weight, reduction=reduction)
    return similarity - offsets[:, None]


def require_neighbours(
    num_neighbours: int,
    num_training: int,
    *,
    key: str = "score_normalization.num_neighbours",
) -> None:
    """Refuse to take the n-th nearest of fewer unrelated images than n.

    Args:
        num_neighbours: n.
        num_training: how many there are that could be read.
        key: what n is set by, for the error.

    Raises:
        InputError: there are fewer.
    """
    if not 1 <= num_neighbours <= num_training:
        raise InputError(
            f"{key}: found {num_neighbours}, expected 1 to {num_training}, as many "
            "training photos as can be read; lower it, or give more of them"
        )


def score_offsets(
    nearest: np.ndarray, *, weight: float, reduction: Reduction
) -> np.ndarray:
    """What is subtracted from each query's similarities: float32 [Q].

    "nth" takes the least of the query's n largest similarities to unrelated images, as
    the Image Similarity Challenge 2021 and the scores published with it do (the default
    reduction of its scripts/score_normalization.py, with --factor 2 --n 10; Douze et
    al., arXiv 2106.09672); "mean" takes their mean.

    Args:
        nearest: [Q, n], the query's n largest similarities to unrelated images, in any
            order.
        weight: of what is taken.
        reduction: "nth" or "mean".
    """
    if reduction == "nth":
        taken = nearest.min(axis=1).astype(np.float32)
    else:
        taken = nearest.mean(axis=1, dtype=np.float32)
    return np.float32(weight) * taken


def expand_queries(
    queries: np.ndarray,
    database: np.ndarray,
    *,
    num_neighbours: int,
    alpha: float,
    itself: np.ndarray | None = None,
    block_bytes: int = SIMILARITY_BYTES,
) -> np.ndarray:
    """α-query expansion: each query joined by its nearest neighbours.

    normalise(q + Σ over its nearest x of max(q·x, 0)^α · x). Radenović et al. 2018.

    Args:
        queries: float32 [Q, D], of unit length.
        database: float32 [N, D], of unit length.
        num_neighbours: how many join; at least 1.
        alpha: α; 0 is the plain mean.
        itself: int [Q], where in the database the query itself is (-1: nowhere), which
            does not join.
        block_bytes: size of the similarities that are computed at once.

    Returns:
        float32 [Q, D], of unit length.
    """
    expanded = np.empty_like(queries, dtype=np.float32)
    for rows in query_blocks(queries, (database,), block_bytes):
        similarity = queries[rows] @ database.T
        for row, values in enumerate(similarity):
            query = rows.start + row
            if itself is not None and itself[query] >= 0:
                values[itself[query]] = -np.inf
            nearest = indices_of_largest(values, num_neighbours)
            nearest = nearest[values[nearest] > 0]
            weights = values[nearest] ** np.float32(alpha)
            expanded[query] = queries[query] + weights @ database[nearest]
    return _unit_length(expanded)


def merge_scales(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Descriptors of images that were embedded at several sizes: float32 [M, D].

    The mean of the embeddings, as the network makes them, and then unit length.

    Args:
        embeddings: for each size, float32 [M, D].
    """
    total = np.zeros(embeddings[0].shape, np.float32)
    for embedding in embeddings:
        total += embedding
    return _unit_length(total / np.float32(len(embeddings)))


def _unit_length(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / (norms + np.float32(NORM_EPSILON))


def query_blocks(
    queries: np.ndarray, others: Sequence[np.ndarray | None], block_bytes: int
) -> list[slice]:
    """Parts of the queries, whose similarities to any of `others` fit the bytes."""
    widest = max(1, *(len(other) for other in others if other is not None))
    size = max(1, block_bytes // (4 * widest))
    return [
        slice(start, min(start + size, len(queries)))
        for start in range(0, len(queries), size)
    ]


def indices_of_largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest, the best first, ties in index order.

    Those at −inf are left out.
    """
    # Few are chosen of very many: no array of all their indices is made.
    if np.count_nonzero(scores > -np.inf) > count:
        last = np.partition(scores, len(scores) - count)[len(scores) - count]
        chosen = np.flatnonzero(scores >= last)
    else:
        chosen = np.flatnonzero(scores > -np.inf)
    return chosen[np.argsort(-scores[chosen], kind="stable")][:count]
