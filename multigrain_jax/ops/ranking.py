"""Scores of rankings: what classification and retrieval report."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# For so few items, counting what comes before each is faster than sorting a row.
MAX_COUNTED = 100


def top_k_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Is the label among the k largest logits? [B, classes], [B] -> bool [B].

    Ties go to the smaller class index.
    """
    _, best = jax.lax.top_k(logits, k)
    return jnp.any(best == labels[:, None], axis=-1)


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label: int64 [B].

    Ties go to the smaller class index, and NaN comes last, as a stable sort has it.

    Args:
        logits: [B, classes].
        labels: int [B], 0 to classes - 1.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    unknown, own_unknown = np.isnan(logits), np.isnan(own)
    before = np.where(own_unknown, ~unknown, logits > own)
    equal = np.where(own_unknown, unknown, logits == own)
    before |= equal & (np.arange(logits.shape[1]) < labels[:, None])
    return np.count_nonzero(before, axis=1)


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


def r_precision(ranks: np.ndarray, num_positives: int) -> float:
    """Share of positives among the R first of one query's ranking of R positives.

    Musgrave et al., arXiv 2003.08505.

    Args:
        ranks: ranks of the positives that were found, 0-based.
        num_positives: R, how many there are in the database.
    """
    return float(np.count_nonzero(ranks < num_positives) / num_positives)


def map_at_r(ranks: np.ndarray, num_positives: int) -> float:
    """Mean over the R first places of the precision there, 0 where one is wrong.

    Musgrave et al., arXiv 2003.08505; its mean over the queries is MAP@R.

    Args:
        ranks: ranks of the positives that were found, 0-based.
        num_positives: R, how many there are in the database.
    """
    first = np.sort(ranks[ranks < num_positives])
    precisions = np.arange(1, len(first) + 1) / (first + 1)
    return float(np.sum(precisions) / num_positives)


def rank_positives(
    similarity: np.ndarray, relevant: np.ndarray, *, ignored: np.ndarray | None = None
) -> list[np.ndarray]:
    """Ranks of each query's relevant items, 0-based, ignored items taken out first.

    Ties are broken in index order; NaN comes last.

    Args:
        similarity: [Q, N], larger is nearer.
        relevant: bool [Q, N].
        ignored: bool [Q, N], items that do not count for a query.

    Returns:
        Q ascending arrays of ranks.
    """
    ranks = []
    for row in range(len(similarity)):
        values, wanted = similarity[row], relevant[row]
        if ignored is not None:
            counts = ~ignored[row]
            values, wanted = values[counts], wanted[counts]
        ranks.append(_ranks_of(wanted, values))
    return ranks


def _ranks_of(wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Ranks of the wanted ones, bool [N], among values [N]: int, ascending."""
    items = np.flatnonzero(wanted)
    if len(items) > MAX_COUNTED or np.isnan(values[items]).any():
        return np.flatnonzero(wanted[np.argsort(-values, kind="stable")])
    before = [
        np.count_nonzero(values > values[item])
        + np.count_nonzero(values[:item] == values[item])
        for item in items
    ]
    return np.sort(np.array(before, np.int64))


def mean_average_precision(
    similarity: np.ndarray, relevant: np.ndarray, *, ignored: np.ndarray | None = None
) -> float:
    """Mean of the queries' average precision; queries without positives left out.

    Arguments as of `rank_positives`.
    """
    scores = average_precisions(similarity, relevant, ignored=ignored)
    return float(np.mean(scores)) if scores else 0.0


def average_precisions(
    similarity: np.ndarray, relevant: np.ndarray, *, ignored: np.ndarray | None = None
) -> list[float]:
    """Average precision of each query that has positives, in the queries' order.

    Arguments as of `rank_positives`.
    """
    return [
        average_precision(ranks, len(ranks))
        for ranks in rank_positives(similarity, relevant, ignored=ignored)
        if len(ranks)
    ]


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


def ranks_in_row(
    similarity: np.ndarray, positives: np.ndarray, junk: np.ndarray
) -> np.ndarray:
    """Ranks of one query's positives, 0-based, junk taken out first.

    Ties are broken in index order. Items at −inf are not found.

    Args:
        similarity: [N], larger is nearer.
        positives: int, indices of what should be found.
        junk: int, indices of what does not count, positives or not.

    Returns:
        int64, ascending; at most as many as there are positives.
    """
    relevant = np.zeros(len(similarity), bool)
    relevant[positives] = True
    counts = similarity > -np.inf
    counts[junk] = False
    found = similarity[relevant & counts]
    if not len(found):
        return np.empty(0, np.int64)
    # Only what comes no later than the last positive has to be sorted.
    near = np.flatnonzero(counts & (similarity >= found.min()))
    order = near[np.argsort(-similarity[near], kind="stable")]
    return np.flatnonzero(relevant[order])


def precision_at_k(ranks: np.ndarray, k: int) -> float:
    """Share of positives among the k first of one query's ranking.

    As the revisited Oxford and Paris benchmarks have it: where the last positive that
    was found comes before rank k, up to that one.

    Args:
        ranks: ranks of the positives that were found, 0-based and ascending.
        k: at least 1.
    """
    if not len(ranks):
        return 0.0
    looked_at = min(int(ranks[-1]) + 1, k)
    return float(np.sum(ranks < looked_at) / looked_at)


def ukbench_score(ranks: np.ndarray) -> float:
    """How many of a query's four images are among its four nearest: 0 to 4.

    Nistér and Stewénius 2006.

    Args:
        ranks: ranks of the positives that were found, 0-based.
    """
    return float(np.sum(np.asarray(ranks) < 4))


def micro_average_precision(
    scores: np.ndarray, correct: np.ndarray, *, num_positives: int
) -> float:
    """Average precision of the candidates of all queries, ranked together.

    The mean over all positives of the precision at their rank, 0 for those that are no
    candidates. Among equal scores, wrong candidates come first, as in the Image
    Similarity Challenge: giving all the same score does not pay. Perronnin et al. 2009.

    Args:
        scores: [C], of (query, database image) pairs, larger is more certain.
        correct: bool [C], whether a pair is one of the positives.
        num_positives: how many there are, candidates or not.
    """
    hits = np.asarray(correct, bool)[_rank_together(scores, correct)]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(np.sum(precision[hits]) / num_positives) if num_positives else 0.0


def recall_at_precision(
    scores: np.ndarray, correct: np.ndarray, *, num_positives: int, precision: float
) -> float:
    """The largest recall at which the candidates' precision is at least `precision`.

    0 if it never is. Arguments and ties as of `micro_average_precision`.
    """
    best = _precise(scores, correct, precision)
    found = np.count_nonzero(np.asarray(correct, bool)[best])
    return found / num_positives if num_positives else 0.0


def recall_at_rank(
    scores: np.ndarray,
    correct: np.ndarray,
    queries: np.ndarray,
    *,
    num_positives: int,
    k: int,
) -> float:
    """Share of the positives that are among the first k candidates of their query.

    Among equal scores of a query a positive comes last, as in the Image Similarity
    Challenge; positives that are no candidates are not found.

    Args:
        scores: [C], of (query, database image) pairs, larger is more certain.
        correct: bool [C], whether a pair is one of the positives.
        queries: int [C], the query of each pair.
        num_positives: how many there are, candidates or not.
        k: at least 1.
    """
    order = np.lexsort((-np.asarray(scores), queries))
    own, values = np.asarray(queries)[order], np.asarray(scores)[order]
    starts = np.searchsorted(own, own)
    # Of each run of equals, the last.
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (own[1:] != own[:-1]) | (values[1:] != values[:-1])
    ends = np.flatnonzero(is_last)
    ranks = ends[np.searchsorted(ends, np.arange(len(order)))] - starts
    found = np.count_nonzero(np.asarray(correct, bool)[order] & (ranks < k))
    return found / num_positives if num_positives else 0.0


def threshold_at_precision(
    scores: np.ndarray, correct: np.ndarray, *, precision: float
) -> float | None:
    """The least score from which on the candidates' precision is at least `precision`.

    None if it never is. Where it is, the recall is that of `recall_at_precision`.
    Arguments and ties as of `micro_average_precision`.
    """
    best = _precise(scores, correct, precision)
    return float(scores[best[-1]]) if len(best) else None


def _precise(scores: np.ndarray, correct: np.ndarray, precision: float) -> np.ndarray:
    """Which candidates, the best first, to take at that precision: int [at most C]."""
    scores, correct = np.asarray(scores), np.asarray(correct, bool)
    best = _first_candidates(scores, _most_at_precision(correct, precision))
    best = best[_rank_together(scores[best], correct[best])]
    hits = correct[best]
    reached = np.cumsum(hits) / np.arange(1, len(hits) + 1) >= precision
    # Up to a right one: its equals are then among them, since wrong ones come first.
    ends = np.flatnonzero(reached & hits)
    return best[: ends[-1] + 1] if len(ends) else best[:0]


def _most_at_precision(correct: np.ndarray, precision: float) -> int:
    """So many candidates and no more can be that precise, even if all right ones lead.

    One more than that, for the rounding.
    """
    most = len(correct)
    if precision > 0:
        most = min(most, int(np.count_nonzero(correct) / precision) + 1)
    return most


def _first_candidates(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest scores and all equal to the least of these: int, ascending.

    Few are chosen of very many: these are not put in order.
    """
    if count >= len(scores):
        return np.arange(len(scores))
    keys = -scores
    # NaN comes last; if it is reached, all are taken.
    return np.flatnonzero(~(keys > np.partition(keys, count - 1)[count - 1]))


def _rank_together(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """The candidates by falling scores, wrong ones first among equals: int [C]."""
    return np.lexsort((correct, -np.asarray(scores)))
