"""The classification loss, with label smoothing on demand.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for
computer vision", 2016, section 7.
"""

import jax
import jax.numpy as jnp

from multigrain_jax.ops.dtypes import at_least_float32


def mean_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Batch mean of -Σ q log p, where q is (1 - ε) · one-hot + ε / classes.

    Args:
        logits: [B, classes].
        labels: int32 [B]; -1 is an unlabelled sample, which adds 0 to the mean.
        label_smoothing: ε in [0, 1); 0 is the plain cross-entropy.

    Returns:
        A scalar in at least float32.
    """
    log_probs = jax.nn.log_softmax(
        logits.astype(at_least_float32(logits.dtype)), axis=-1
    )
    picked = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[:, None], axis=-1)
    likelihood = picked[:, 0]
    if label_smoothing:
        of_all = jnp.mean(log_probs, axis=-1)
        likelihood = (1 - label_smoothing) * likelihood + label_smoothing * of_all
    return -jnp.mean(jnp.where(labels >= 0, likelihood, 0.0))
