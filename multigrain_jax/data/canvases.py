"""A few shapes for images of many: which canvas holds which image.

An image lies in the top-left corner of its canvas; the network masks the rest (see
`models.layers.FeatureMap`), so a larger canvas costs time and changes no number.
"""

from collections.abc import Sequence

import numpy as np

MAX_CANVASES = 8
MAX_WASTE = 0.15
# More than any cost, and small enough to be added up once per canvas.
IMPOSSIBLE = 1 << 58


def choose_canvases(
    sizes: np.ndarray,
    *,
    max_canvases: int = MAX_CANVASES,
    max_waste: float = MAX_WASTE,
) -> np.ndarray:
    """The canvas shapes for a set of images whose longer sides are all the same.

    The fewest shapes that waste at most `max_waste` of their pixels, or `max_canvases`
    shapes if that many waste more; among as many shapes, those that waste least.

    Args:
        sizes: int [N, 2], height and width of each image, N > 0.
        max_canvases: at least 2.
        max_waste: share of the canvases' pixels that belongs to no image.

    Returns:
        int32 [K, 2], heights and widths; every image fits one.

    Raises:
        ValueError: longer sides that differ.
    """
    sides = np.max(sizes, axis=1)
    side = int(sides[0])
    if np.any(sides != side):
        raise ValueError(
            f"sizes: longer sides from {sides.min()} to {sides.max()} found, expected "
            "one and the same: resize the images to one longer side first"
        )
    is_upright = sizes[:, 1] < side
    wide = _best_thresholds(sizes[~is_upright, 0], max_canvases)
    upright = _best_thresholds(sizes[is_upright, 1], max_canvases)
    used = int(sizes.astype(np.int64).prod(axis=1).sum())
    best: tuple[int, list[int], list[int]] | None = None
    for total in range(1, max_canvases + 1):
        splits = [
            (wide[count][0] + upright[total - count][0], count)
            for count in range(total + 1)
            if count in wide and total - count in upright
        ]
        if not splits:
            continue
        wasted, count = min(splits)
        best = (side * wasted, wide[count][1], upright[total - count][1])
        if best[0] <= max_waste * (used + best[0]):
            break
    assert best is not None  # one shape for each orientation is always possible
    shapes = [(height, side) for height in best[1]] + [(side, w) for w in best[2]]
    return np.array(shapes, np.int32)


def smallest_canvases(sizes: np.ndarray, canvases: np.ndarray) -> np.ndarray:
    """The number of the smallest canvas that holds each image: int32 [N].

    Args:
        sizes: int [N, 2], height and width of each image.
        canvases: int [K, 2].

    Raises:
        ValueError: an image that fits no canvas.
    """
    areas = canvases.astype(np.int64).prod(axis=1)
    fits = np.all(sizes[:, None, :] <= canvases[None, :, :], axis=2)
    if not np.all(fits.any(axis=1)):
        height, width = sizes[~fits.any(axis=1)][0]
        raise ValueError(
            f"sizes: found {height} x {width}, which fits none of the canvases "
            f"{canvases.tolist()}; plan them with all sizes"
        )
    return np.argmin(np.where(fits, areas, np.iinfo(np.int64).max), axis=1).astype(
        np.int32
    )


def group_by_canvas(
    canvas_of: np.ndarray, canvases: np.ndarray, batch_size: int
) -> list[tuple[int, np.ndarray]]:
    """Batches of images that share a canvas: (canvas, positions in `canvas_of`).

    What is left over of a canvas moves to the next larger one of its orientation, so
    that at most one batch of each orientation is not full.

    Args:
        canvas_of: int [N], the canvas that each image needs.
        canvases: int [K, 2], as `choose_canvases` orders them.
        batch_size: images per batch.
    """
    batches = []
    side = int(canvases.max())
    upright = canvases[:, 1] < side
    for family in (np.flatnonzero(~upright), np.flatnonzero(upright)):
        waiting = np.empty(0, np.int64)
        for canvas in family:
            members = np.concatenate([waiting, np.flatnonzero(canvas_of == canvas)])
            full = len(members) // batch_size * batch_size
            batches += [
                (int(canvas), members[start : start + batch_size])
                for start in range(0, full, batch_size)
            ]
            waiting = members[full:]
        if len(waiting):
            batches.append((int(family[-1]), waiting))
    return batches


def _best_thresholds(
    values: np.ndarray, max_count: int
) -> dict[int, tuple[int, list[int]]]:
    """For each number of thresholds, the ones that values round up to most cheaply.

    Returns:
        count -> (sum of all roundings, ascending thresholds), for as many counts as
        make sense: {0: (0, [])} without values.
    """
    if not len(values):
        return {0: (0, [])}
    distinct, counts = np.unique(values.astype(np.int64), return_counts=True)
    # cost[i, j]: the values i … j-1 rounded up to value j-1.
    number = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([[0], np.cumsum(counts * distinct)])
    tops = distinct[None, :]
    cost = tops * (number[1:] - number[:-1, None]) - (total[1:] - total[:-1, None])
    above = np.arange(len(distinct))[:, None] > np.arange(len(distinct))[None, :]
    cost = np.where(above, IMPOSSIBLE, cost)
    best = cost[0]
    chosen: list[np.ndarray] = []
    found = {1: (int(best[-1]), [int(distinct[-1])])}
    for count in range(2, min(max_count, len(distinct)) + 1):
        # The last threshold covers the values i … j, the others those before i.
        candidates = best[:-1, None] + cost[1:, :]
        first = np.argmin(candidates, axis=0) + 1
        chosen.append(first)
        best = np.min(candidates, axis=0)
        found[count] = (int(best[-1]), _walk_back(distinct, chosen))
    return found


def _walk_back(distinct: np.ndarray, chosen: Sequence[np.ndarray]) -> list[int]:
    last = len(distinct) - 1
    thresholds = [int(distinct[last])]
    for first in reversed(chosen):
        last = int(first[last]) - 1
        thresholds.append(int(distinct[last]))
    return thresholds[::-1]
