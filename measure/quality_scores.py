"""Scores of a run of measure/quality.py from what became of each photo, and back.

The outcomes are kept, so that differences between recipes can be had with the photos
drawn anew (the bootstrap).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from multigrain_jax.data.edits import EDITS

Outcomes = Mapping[str, np.ndarray]

# Edits that stand apart: turned photos and overlaid ones, which views of the quick
# start's own kind are not. TrivialAugment turns, and `augmentation = "copies"` writes
# text: of recipes with them they are seen in part.
UNSEEN = ("rotation 15° + flip", "overlay")
SEEN = tuple(name for name in EDITS if name not in UNSEEN)
# Of each query so many wrong pairs are kept, the nearest: enough to resample µAP.
KEPT_PAIRS = 64
# Scores that a `Resampler` has.
RESAMPLED = ("top1", "class_map", "knn_top1", "copy_recall_at_1", "micro_ap")


def summarise(outcomes: Outcomes) -> dict[str, float]:
    """The scores of a run, as fractions.

    Args:
        outcomes: of `class_outcomes` and `copy_outcomes`, all pairs of the latter.

    Returns:
        `top1`, `class_map`, `knn_top1`; the means over the edits `copy_recall_at_1` and
        `copy_map`, and both for each edit; `micro_ap` of the benchmark of copies, of
        the edits of `UNSEEN` and of the others, and normalised.
    """
    scores = {
        name: float(np.mean(outcomes[name]))
        for name in ("top1", "class_map", "knn_top1")
    }
    recalls, precisions = outcomes["ranks"] == 0, precisions_of(outcomes["ranks"])
    scores["copy_recall_at_1"] = float(np.mean(recalls))
    scores["copy_map"] = float(np.mean(precisions))
    scores["micro_ap"] = micro_ap(outcomes, tuple(EDITS))
    scores["micro_ap_seen"] = micro_ap(outcomes, SEEN)
    scores["micro_ap_unseen"] = micro_ap(outcomes, UNSEEN)
    scores["micro_ap_normalized"] = micro_ap(outcomes, tuple(EDITS), share=1.0)
    for name, recall, precision in zip(EDITS, recalls, precisions, strict=True):
        scores[f"{name}/recall_at_1"] = float(np.mean(recall))
        scores[f"{name}/map"] = float(np.mean(precision))
    return scores


def precisions_of(ranks: np.ndarray) -> np.ndarray:
    """The average precision of queries with one positive, of its 0-based ranks."""
    from multigrain_jax.ops.ranking import average_precision

    each = [average_precision([rank], 1) for rank in ranks.reshape(-1)]
    return np.array(each).reshape(ranks.shape)


def micro_ap(outcomes: Outcomes, edits: Sequence[str], *, share: float = 0.0) -> float:
    """The micro average precision of the benchmark of copies.

    Args:
        outcomes: `right` [E, R], `wrong` [E, R + S, K], `query_photos` and `offsets`.
        edits: the queries, keys of `EDITS`.
        share: of the offsets, that is subtracted.
    """
    from multigrain_jax.ops.ranking import micro_average_precision

    scores, correct, _ = _candidates(outcomes, edits, share=share)
    count = int(np.count_nonzero(correct))
    return micro_average_precision(scores, correct, num_positives=count)


def _candidates(
    outcomes: Outcomes, edits: Sequence[str], *, share: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of all pairs, whether they are right, and the photos of their queries."""
    chosen = [list(EDITS).index(name) for name in edits]
    right = outcomes["right"][chosen].astype(np.float32)
    wrong = outcomes["wrong"][chosen].astype(np.float32)
    if share:
        offsets = np.float32(share) * outcomes["offsets"][chosen].astype(np.float32)
        right = right - offsets[:, : right.shape[1]]
        wrong = wrong - offsets[..., None]
    photos = np.broadcast_to(outcomes["query_photos"], wrong.shape[:2])
    scores = np.concatenate([right.reshape(-1), wrong.reshape(-1)])
    queries = np.concatenate(
        [
            photos[:, : right.shape[1]].reshape(-1),
            np.repeat(photos.reshape(-1), wrong.shape[2]),
        ]
    )
    return scores, np.arange(len(scores)) < right.size, queries


class Resampler:
    """A run's scores with every photo as often a query as it is drawn."""

    def __init__(self, outcomes: Outcomes):
        """Take the outcomes as they are kept; all pairs are put in order once."""
        self._outcomes = outcomes
        self._recalls = np.mean(outcomes["ranks"] == 0, axis=0)
        scores, correct, queries = _candidates(outcomes, tuple(EDITS))
        # Among equal scores, wrong pairs come first.
        order = np.lexsort((correct, -scores))
        self._queries = queries[order]
        self._right = np.flatnonzero(correct[order])

    def scores(self, weights: np.ndarray) -> dict[str, float]:
        """The scores `RESAMPLED`.

        Args:
            weights: [N], how often each photo was drawn.
        """
        outcomes, weights = self._outcomes, weights.astype(np.float64)
        rows = weights[outcomes["class_rows"]]
        return {
            "top1": _mean(outcomes["top1"], weights),
            "class_map": _mean(outcomes["class_map"], rows),
            "knn_top1": _mean(outcomes["knn_top1"], rows),
            "copy_recall_at_1": _mean(self._recalls, weights),
            "micro_ap": self._micro_ap(weights),
        }

    def _micro_ap(self, weights: np.ndarray) -> float:
        times = weights[self._queries]
        before = np.cumsum(times)[self._right]
        right = times[self._right]
        precisions = np.cumsum(right) / np.maximum(before, 1e-12)
        return _mean(precisions, right)


def kept_outcomes(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """What is kept of a run: similarities in half precision, and the nearest pairs."""
    kept = dict(outcomes)
    kept["wrong"] = np.sort(outcomes["wrong"], axis=-1)[..., -KEPT_PAIRS:]
    for name in ("right", "wrong", "offsets"):
        kept[name] = kept[name].astype(np.float16)
    return kept


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sum(values * weights) / max(1e-12, float(np.sum(weights))))
