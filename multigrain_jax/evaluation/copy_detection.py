"""Whether edited copies of photos find their originals."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.edits import Edit
from multigrain_jax.data.sources.copies import CopySource
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.ops.ranking import (
    mean_average_precision,
    micro_average_precision,
    recall_at_k,
    threshold_at_precision,
)
from multigrain_jax.ops.refinement import Reduction, normalize_scores


class Background(NamedTuple):
    """Photos that nothing is a copy of, by which scores are normalised.

    Attributes:
        descriptors: float32 [T, D], of unit length; zeros, of those that could not be
            read, count for nothing.
        weight: as of `normalize_scores`, as the two below.
        num_neighbours: of a copy, among these photos.
        reduction: of their similarities.
    """

    descriptors: np.ndarray
    weight: float
    num_neighbours: int
    reduction: Reduction


def copy_scores(
    embed: Callable[[ImageSource], Embedded],
    source: ImageSource,
    photos: Embedded,
    originals: Sequence[int] | np.ndarray,
    *,
    edit: Edit,
    background: Background | None,
) -> dict[str, float]:
    """How well copies find their originals among all photos of a source.

    Args:
        embed: as `embed_source`, all its options given.
        source: the photos.
        photos: what `embed` makes of them.
        originals: int [Q], the photos whose copies are the queries.
        edit: makes the copies, such as a value of `EDITS`.
        background: for the scores of all pairs together; None: without them.

    Returns:
        `recall_at_1`, the share of copies whose nearest photo is their original; `map`,
        the mean average precision of finding it; and, if there is one,
        `threshold_at_p90`, the similarity from which on 90 % of all pairs of a copy and
        a photo are a copy and its original. With a background, `micro_ap`, the average
        precision of all pairs ranked together, and `micro_ap_normalized`.

    Raises:
        InputError: fewer photos of the background could be read than are to be
            neighbours.
    """
    copies = embed(CopySource(source, originals, edit))
    similarity = copies.descriptors @ photos.descriptors.T
    relevant = np.zeros(similarity.shape, bool)
    relevant[np.arange(len(similarity)), originals] = True
    scores = {
        "recall_at_1": recall_at_k(similarity, relevant, k=1),
        "map": mean_average_precision(similarity, relevant),
    }
    threshold = threshold_at_precision(
        similarity.reshape(-1), relevant.reshape(-1), precision=0.9
    )
    if threshold is not None:
        scores["threshold_at_p90"] = threshold
    if background is not None:
        known = np.any(background.descriptors, axis=1)
        normalized = normalize_scores(
            similarity,
            copies.descriptors @ background.descriptors[known].T,
            weight=background.weight,
            num_neighbours=background.num_neighbours,
            reduction=background.reduction,
        )
        for name, values in (
            ("micro_ap", similarity),
            ("micro_ap_normalized", normalized),
        ):
            scores[name] = micro_average_precision(
                values.reshape(-1), relevant.reshape(-1), num_positives=len(relevant)
            )
    return scores
