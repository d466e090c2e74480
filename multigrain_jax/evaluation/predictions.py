"""The classes that a network sees in photos, and how sure it is of them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from multigrain_jax.evaluation.embed import EmbeddedBatch
from multigrain_jax.models.multigrain import class_logits


class Predictions(NamedTuple):
    """The best classes of N photos, in the order of their source.

    Attributes:
        indices: int64 [N], the photos' numbers in their source.
        classes: int64 [N, k], the most probable first.
        probabilities: float32 [N, k], of these.
        margins: float32 [N], how much more probable the first class is than the second;
            1 where there is one class.
        entropies: float32 [N], of all classes, in nats: 0 is certain.
        num_unreadable: photos that are not among these.
    """

    indices: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    margins: np.ndarray
    entropies: np.ndarray
    num_unreadable: int


def collect_predictions(
    batches: Iterable[EmbeddedBatch], *, num_best: int
) -> Predictions:
    """The best classes of every readable photo; memory grows with N · `num_best`.

    Args:
        batches: at least one, as `embed_batches` yields them, with logits.
        num_best: k, at most as many as there are classes.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    num_unreadable = 0
    for batch in batches:
        good = ~batch.bad
        num_unreadable += int(batch.bad.sum())
        logits = class_logits(batch.logits)[good]
        parts.append((batch.indices[good].astype(np.int64), *_best(logits, num_best)))
    whole = [np.concatenate(each) for each in zip(*parts, strict=True)]
    order = np.argsort(whole[0], kind="stable")
    indices, classes, probabilities, margins, entropies = (w[order] for w in whole)
    return Predictions(
        indices, classes, probabilities, margins, entropies, num_unreadable
    )


def _best(logits: np.ndarray, num_best: int) -> tuple[np.ndarray, ...]:
    """Classes, probabilities, margins and entropies of logits [n, classes]."""
    scores = np.asarray(logits, np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    probabilities = np.exp(log_probabilities)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sorted_ = np.take_along_axis(probabilities, order[:, : max(2, num_best)], axis=1)
    second = sorted_[:, 1] if sorted_.shape[1] > 1 else np.zeros(len(sorted_))
    return (
        order[:, :num_best],
        sorted_[:, :num_best].astype(np.float32),
        (sorted_[:, 0] - second).astype(np.float32),
        -np.sum(probabilities * log_probabilities, axis=1).astype(np.float32),
    )


def accuracies(predictions: Predictions, labels: np.ndarray) -> dict[str, float]:
    """How often the class of a photo's folder is the first, or among the best.

    Args:
        predictions: of N photos.
        labels: int [N], of the same photos; -1: of no class that is known.

    Returns:
        `accuracy` and, of more than one best class, `accuracy_of_best_<k>`; nothing
        where no photo has a class.
    """
    known = labels >= 0
    if not known.any():
        return {}
    right = predictions.classes[known] == labels[known, None]
    found = {"accuracy": float(right[:, 0].mean())}
    if right.shape[1] > 1:
        found[f"accuracy_of_best_{right.shape[1]}"] = float(right.any(axis=1).mean())
    return found
