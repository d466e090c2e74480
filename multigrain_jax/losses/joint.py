"""MultiGrain's joint objective: classification and instances, one weight between.

The paper's instance loss is the margin loss. InfoNCE may take its place, and a KoLeo
term may join, for embeddings that are to tell copies apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from multigrain_jax.losses.cross_entropy import mean_cross_entropy
from multigrain_jax.losses.margin import MARGIN, margin_loss
from multigrain_jax.losses.sampling import Pairs
from multigrain_jax.ops.dtypes import at_least_float32
from multigrain_jax.ops.mixing import MixedLabels

INSTANCE_LOSSES = ("margin", "infonce")


class JointOutput(NamedTuple):
    """The weighted loss and its parts of the paper, scalars (a skipped part is 0)."""

    loss: jax.Array
    cross_entropy: jax.Array
    margin: jax.Array


def joint_loss(
    logits: jax.Array,
    labels: jax.Array,
    normalized: jax.Array,
    pairs: Pairs | None,
    beta: jax.Array,
    *,
    classification_weight: float,
    margin: float = MARGIN,
    label_smoothing: float = 0.0,
    mixed: MixedLabels | None = None,
    infonce: jax.Array | None = None,
    koleo: jax.Array | None = None,
    koleo_weight: float = 0.0,
) -> JointOutput:
    """λ · cross-entropy (batch mean) + (1 - λ) · margin loss. MultiGrain, equation 5.

    With InfoNCE that stands in the margin loss's place; with KoLeo its weight times its
    value is added.

    Args:
        logits: [B, classes].
        labels: int32 [B]; -1 is an unlabelled sample, which adds 0 to the batch mean.
        normalized: [B, D] unit vectors.
        pairs: positives and negatives; None only for λ = 1, or with InfoNCE.
        beta: scalar, the margin loss's threshold.
        classification_weight: λ in [0, 1]; at 1 the margin loss is skipped, at 0 the
            cross-entropy is reported without a gradient.
        margin: α of the margin loss.
        label_smoothing: ε of the cross-entropy, in [0, 1).
        mixed: what samples are besides their label, for the cross-entropy alone; those
            that are mixtures have no instance.
        infonce: the value of InfoNCE; None: the margin loss is used.
        koleo: the value of KoLeo; None: without.
        koleo_weight: its weight.

    Raises:
        ValueError: λ outside [0, 1], or λ < 1 without pairs.
    """
    if not 0 <= classification_weight <= 1:
        raise ValueError(
            f"classification_weight: found {classification_weight}, expected [0, 1]"
        )
    if pairs is None and infonce is None and classification_weight != 1:
        raise ValueError(
            f"classification_weight = {classification_weight} needs pairs, found none: "
            "the margin loss has no positives; use 1, or repeat augmentations"
        )
    dtype = at_least_float32(logits.dtype)
    cross_entropy = mean_cross_entropy(
        logits, labels, label_smoothing=label_smoothing, mixed=mixed
    )
    margin_part = jnp.zeros((), dtype)
    if pairs is not None and classification_weight != 1:
        margin_part = margin_loss(normalized, pairs, beta, margin=margin).loss
    instance_part = margin_part if infonce is None else infonce
    if classification_weight == 1:
        loss = cross_entropy
    elif classification_weight == 0:
        loss = instance_part
    else:
        loss = (
            classification_weight * cross_entropy
            + (1 - classification_weight) * instance_part
        )
    if koleo is not None:
        loss = loss + koleo_weight * koleo
    return JointOutput(loss, cross_entropy, margin_part)
