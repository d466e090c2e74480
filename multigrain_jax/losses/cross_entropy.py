"""The classification loss, with label smoothing on demand.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for
computer vision", 2016, section 7.
"""

import jax
import jax.numpy as jnp

from multigrain_jax.ops.dtypes import at_least_float32
from multigrain_jax.ops.mixing import MixedLabels


def mean_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    label_smoothing: float = 0.0,
    mixed: MixedLabels | None = None,
) -> jax.Array:
    """Batch mean of -Σ q log p, where q is (1 - ε) · one-hot + ε / classes.

    Of a mixture it is share · (that of its own label) + (1 - share) · (of the other).

    Args:
        logits: [B, classes].
        labels: int32 [B]; -1 is an unlabelled sample, which adds 0 to the mean.
        label_smoothing: ε in [0, 1); 0 is the plain cross-entropy.
        mixed: what the samples are besides; None: nothing.

    Returns:
        A scalar in at least float32.
    """
    log_probs = jax.nn.log_softmax(
        logits.astype(at_least_float32(logits.dtype)), axis=-1
    )
    likelihood = _likelihood(log_probs, labels, label_smoothing)
    if mixed is not None:
        other = _likelihood(log_probs, mixed.other, label_smoothing)
        share = mixed.share.astype(log_probs.dtype)
        likelihood = share * likelihood + (1 - share) * other
    return -jnp.mean(likelihood)


def _likelihood(
    log_probs: jax.Array, labels: jax.Array, label_smoothing: float
) -> jax.Array:
    """Σ q log p of each sample, [B]; 0 where there is no label."""
    picked = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[:, None], axis=-1)
    likelihood = picked[:, 0]
    if label_smoothing:
        of_all = jnp.mean(log_probs, axis=-1)
        likelihood = (1 - label_smoothing) * likelihood + label_smoothing * of_all
    return jnp.where(labels >= 0, likelihood, 0.0)
