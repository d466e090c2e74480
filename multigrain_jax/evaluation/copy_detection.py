"""Whether edited copies of photos find their originals."""

from collections.abc import Callable, Sequence

import numpy as np

from multigrain_jax.data.edits import Edit
from multigrain_jax.data.sources.copies import CopySource
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.ops.ranking import (
    mean_average_precision,
    recall_at_k,
    threshold_at_precision,
)


def copy_scores(
    embed: Callable[[ImageSource], Embedded],
    source: ImageSource,
    photos: Embedded,
    originals: Sequence[int] | np.ndarray,
    *,
    edit: Edit,
) -> dict[str, float]:
    """How well copies find their originals among all photos of a source.

    Args:
        embed: as `embed_source`, all its options given.
        source: the photos.
        photos: what `embed` makes of them.
        originals: int [Q], the photos whose copies are the queries.
        edit: makes the copies, such as a value of `EDITS`.

    Returns:
        `recall_at_1`, the share of copies whose nearest photo is their original; `map`,
        the mean average precision of finding it; and, if there is one,
        `threshold_at_p90`, the similarity from which on 90 % of all pairs of a copy and
        a photo are a copy and its original.
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
    return scores
