"""Photos that are odd among the others, by the descriptors of their neighbours."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.index import DescriptorIndex

QUERIES_AT_ONCE = 2048
# Of a standard deviation of a normal distribution, the median absolute deviation.
MAD_OF_DEVIATION = 0.6745
LEAST_MAD = 1e-3


class Neighbours(NamedTuple):
    """The nearest other rows of every live row.

    Attributes:
        rows: int64 [N], the live rows.
        nearest: int64 [N, k], places in `rows`, the most similar first; -1 where there
            are fewer.
        similarities: float32 [N, k], -inf where there are fewer.
    """

    rows: np.ndarray
    nearest: np.ndarray
    similarities: np.ndarray


class Mislabel(NamedTuple):
    """A photo whose neighbours are mostly of another class.

    Attributes:
        place: in the rows.
        other: the class of most of them.
        of_other: how many are of that one.
        of_own: how many are of the photo's own class.
        looked_at: of how many.
    """

    place: int
    other: int
    of_other: int
    of_own: int
    looked_at: int


def nearest_others(index: DescriptorIndex, k: int) -> Neighbours:
    """The k most similar other live rows of each, exactly."""
    rows = np.flatnonzero(index.live)
    place = np.full(len(index) + 1, -1, np.int64)
    place[rows] = np.arange(len(rows))
    found, found_similarities = [], []
    for own, queries in _live_blocks(index, rows):
        similarities, nearest = index.search(queries, min(k + 1, len(index)))
        # Itself is left out where it is found, and else the last one: an equal row of a
        # smaller number may come before it.
        itself = nearest == own[:, None]
        itself[~itself.any(axis=1), -1] = True
        shape = (len(own), nearest.shape[1] - 1)
        found.append(place[nearest[~itself].reshape(shape)])
        found_similarities.append(similarities[~itself].reshape(shape))
    nearest, similarities = np.concatenate(found), np.concatenate(found_similarities)
    return Neighbours(rows, nearest, similarities)


def likely_mislabels(nearest: np.ndarray, labels: np.ndarray) -> list[Mislabel]:
    """Photos of whose neighbours at least half are of one other class, and fewer own.

    Of a class of n photos, each looks at its n - 1 nearest neighbours at most: so many
    may be of its own. Photos that are alone in their class look at none.

    Args:
        nearest: int [N, k], as `Neighbours` has it.
        labels: int [N], of all photos; negative: not known.

    Returns:
        Those of the largest share of the other class first, of equal ones those of the
        fewest of their own.
    """
    found = []
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    for place, label in enumerate(labels.tolist()):
        if label < 0:
            continue
        own = nearest[place, : max(0, sizes[label] - 1)]
        classes = labels[own[own >= 0]]
        classes = classes[classes >= 0]
        if not len(classes):
            continue
        counts = np.bincount(classes, minlength=label + 1)
        of_own, counts[label] = int(counts[label]), 0
        other = int(counts.argmax())
        of_other = int(counts[other])
        if 2 * of_other >= len(classes) and of_other > of_own:
            found.append(Mislabel(place, other, of_other, of_own, len(classes)))
    return sorted(found, key=lambda m: (-m.of_other / m.looked_at, m.of_own, m.place))


def outlier_deviations(similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each photo is from its neighbours, compared with the other photos.

    (median - s) / deviation, s the mean similarity to its neighbours, and the deviation
    that of a normal distribution of the same median absolute deviation.

    Args:
        similarities: float [N, k], as `Neighbours` has it.

    Returns:
        float64 [N], large for outliers, and s, float64 [N]; both NaN where a photo has
        no neighbour.
    """
    known = np.isfinite(similarities)
    counts = known.sum(axis=1)
    sums = np.where(known, similarities, 0).sum(axis=1, dtype=np.float64)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    if not counts.any():
        return mean, mean
    median = np.nanmedian(mean)
    mad = max(LEAST_MAD, float(np.nanmedian(np.abs(mean - median))))
    return (median - mean) * MAD_OF_DEVIATION / mad, mean


def _live_blocks(
    index: DescriptorIndex, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(rows), QUERIES_AT_ONCE):
        own = rows[start : start + QUERIES_AT_ONCE]
        first = int(own[0])
        block = index.read(first, int(own[-1]) - first + 1)
        yield own, block[own - first]
