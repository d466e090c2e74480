"""The margin loss with a learned threshold β."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from multigrain_jax.losses.sampling import Pairs
from multigrain_jax.ops.dtypes import at_least_float32

BETA_INIT = 1.2
MARGIN = 0.2  # α
DISTANCE_EPSILON = 1e-8  # keeps the gradient of a zero distance finite


class MarginOutput(NamedTuple):
    """The loss and how many of its terms are positive, both scalars."""

    loss: jax.Array
    num_active_pairs: jax.Array


def margin_loss(
    normalized: jax.Array, pairs: Pairs, beta: jax.Array, *, margin: float = MARGIN
) -> MarginOutput:
    """Pull positives nearer than β - α, push negatives farther than β + α.

    Σ max(0, d_ap - β + α) + max(0, β - d_an + α), over the number of positive terms
    (of either kind, at least 1); d = sqrt(|x - y|² + 1e-8). Wu et al. 2017, equation 5,
    normalised as the original does under PyTorch 1.0.

    Args:
        normalized: [B, D] unit vectors.
        pairs: positives and negatives, indices into the batch.
        beta: scalar threshold.
        margin: α.
    """
    dtype = at_least_float32(normalized.dtype)
    normalized, beta = normalized.astype(dtype), beta.astype(dtype)

    def distance(other: jax.Array) -> jax.Array:
        difference = normalized[:, None, :] - normalized[other]
        return jnp.sqrt(jnp.sum(difference * difference, axis=-1) + DISTANCE_EPSILON)

    too_far = jax.nn.relu(distance(pairs.positive) - beta + margin)
    too_near = jax.nn.relu(beta - distance(pairs.negative) + margin)
    terms = jnp.where(pairs.mask[None], jnp.stack([too_far, too_near]), 0.0)
    active = jnp.sum(terms > 0).astype(dtype)
    return MarginOutput(jnp.sum(terms) / jnp.maximum(active, 1.0), active)
