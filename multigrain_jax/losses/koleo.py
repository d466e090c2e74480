"""KoLeo, the differential entropy of the embeddings: spreads instances evenly.

Sablayrolles, Douze, Schmid and Jégou, "Spreading vectors for similarity search", 2019;
for copy detection: Pizzi, Roy, Ravindra, Goyal and Douze, "A self-supervised descriptor
for image copy detection" (SSCD), 2022, where the nearest is of another image.
"""

import jax
import jax.numpy as jnp

from multigrain_jax.losses.groups import in_groups
from multigrain_jax.losses.margin import DISTANCE_EPSILON
from multigrain_jax.ops.distances import pairwise_squared_distances
from multigrain_jax.ops.dtypes import at_least_float32


def koleo_loss(
    normalized: jax.Array, instance_ids: jax.Array, *, group_size: int
) -> jax.Array:
    """-mean of log d, the distance to the nearest sample of another instance.

    d = sqrt(|x - y|² + 1e-8), as in the margin loss: at duplicates the value is about
    9.2, and the gradient 0 there and finite around. It flows through both samples, not
    through the choice of the nearest.

    Args:
        normalized: [B, D] unit vectors.
        instance_ids: int32 [B]; samples with the same id are of one instance, those
            with one below 0 of none: they do not count.
        group_size: divides B; the nearest is looked for in a group.

    Returns:
        A scalar in at least float32. Samples whose group has no other instance do not
        count; 0 where none does.

    Raises:
        ValueError: `group_size` does not divide B.
    """
    groups, ids = in_groups(normalized, instance_ids, group_size=group_size)
    losses, counts = jax.vmap(_of_group)(groups, ids)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1.0)


def _of_group(
    normalized: jax.Array, instance_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum of the samples' losses and their number, of one group."""
    x = normalized.astype(at_least_float32(normalized.dtype))
    squared = pairwise_squared_distances(jax.lax.stop_gradient(x))
    seen = instance_ids >= 0
    other = instance_ids[:, None] != instance_ids[None, :]
    other &= seen[:, None] & seen[None, :]
    nearest = jax.lax.argmin(jnp.where(other, squared, jnp.inf), 1, jnp.int32)
    # The Gram matrix's distances would lose the small ones to rounding.
    difference = x - x[nearest]
    exact = jnp.sum(difference * difference, axis=1) + DISTANCE_EPSILON
    counts = jnp.any(other, axis=1)
    losses = jnp.where(counts, -0.5 * jnp.log(exact), 0.0)
    return jnp.sum(losses), jnp.sum(counts).astype(x.dtype)
