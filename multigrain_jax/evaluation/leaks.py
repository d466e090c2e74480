"""Photos that are evaluated and nearly the same as one that was trained on."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from multigrain_jax.evaluation.embed import Embedded, EmbeddedBatch


class Leaks(NamedTuple):
    """Photos with a near duplicate in another set, the most similar first.

    Attributes:
        photos: int64 [L], their numbers.
        originals: int64 [L], the number of the most similar photo of the other set.
        similarities: float32 [L], to that one.
    """

    photos: np.ndarray
    originals: np.ndarray
    similarities: np.ndarray


def find_leaks(
    photos: Embedded, others: Iterable[EmbeddedBatch], *, threshold: float
) -> Leaks:
    """The photos of which another set has a near duplicate.

    Of equally similar ones of the other set, that of the smallest number counts.

    Args:
        photos: N of them.
        others: the other set, in any order; of each batch nothing is kept.
        threshold: the least inner product of near duplicates.
    """
    best = np.full(len(photos.descriptors), -np.inf, np.float32)
    original = np.full(len(best), -1, np.int64)
    for batch in others:
        numbers = np.asarray(batch.indices, np.int64)[~batch.bad]
        if not len(numbers):
            continue
        order = np.argsort(numbers)
        similarity = photos.descriptors @ batch.descriptors[~batch.bad][order].T
        nearest = similarity.argmax(axis=1)
        values, found = similarity.max(axis=1), numbers[order][nearest]
        better = (values > best) | ((values == best) & (found < original))
        best[better], original[better] = values[better], found[better]
    leaking = np.flatnonzero((best >= threshold) & ~photos.bad)
    leaking = leaking[np.argsort(-best[leaking], kind="stable")]
    return Leaks(leaking, original[leaking], np.minimum(best[leaking], 1))
