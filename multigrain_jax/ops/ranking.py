"""Scores of rankings: what classification and retrieval report."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def top_k_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Is the label among the k largest logits? [B, classes], [B] -> bool [B].

    Ties go to the smaller class index.
    """
    _, best = jax.lax.top_k(logits, k)
    return jnp.any(best == labels[:, None], axis=-1)


def average_precision(ranks: Sequence[int] | np.ndarray, num_positives: int) -> float:
    """Trapezoid average precision of one query.

    The t-th positive found (0-based), at 0-based rank r, adds
    (t/r [1 if r = 0] + (t+1)/(r+1)) / 2 / num_positives. Philbin et al. 2007.

    Args:
        ranks: ranks of the positives that were found, 0-based.
        num_positives: how many there are in the database.
    """
    ranks = np.sort(np.asarray(ranks, np.float64))
    found = np.arange(len(ranks), dtype=np.float64)
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1.0))
    after = (found + 1) / (ranks + 1)
    return float(np.sum((before + after) / 2) / num_positives) if len(ranks) else 0.0


def rank_positives(
    similarity: np.ndarray, relevant: np.ndarray, *, ignored: np.ndarray | None = None
) -> list[np.ndarray]:
    """Ranks of each query's relevant items, 0-based, ignored items taken out first.

    Ties are broken in index order.

    Args:
        similarity: [Q, N], larger is nearer.
        relevant: bool [Q, N].
        ignored: bool [Q, N], items that do not count for a query.

    Returns:
        Q ascending arrays of ranks.
    """
    ranks = []
    for row in range(len(similarity)):
        order = np.argsort(-similarity[row], kind="stable")
        if ignored is not None:
            order = order[~ignored[row, order]]
        ranks.append(np.flatnonzero(relevant[row, order]))
    return ranks


def mean_average_precision(
    similarity: np.ndarray, relevant: np.ndarray, *, ignored: np.ndarray | None = None
) -> float:
    """Mean of the queries' average precision; queries without positives left out.

    Arguments as of `rank_positives`.
    """
    scores = [
        average_precision(ranks, len(ranks))
        for ranks in rank_positives(similarity, relevant, ignored=ignored)
        if len(ranks)
    ]
    return float(np.mean(scores)) if scores else 0.0


def recall_at_k(
    similarity: np.ndarray,
    relevant: np.ndarray,
    *,
    k: int,
    ignored: np.ndarray | None = None,
) -> float:
    """Share of queries with a relevant item among their k nearest.

    Queries without relevant items are left out. Arguments as of `rank_positives`.
    """
    hits = [
        ranks[0] < k
        for ranks in rank_positives(similarity, relevant, ignored=ignored)
        if len(ranks)
    ]
    return float(np.mean(hits)) if hits else 0.0
