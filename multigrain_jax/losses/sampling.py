"""Which negatives the margin loss looks at: distance-weighted sampling, two ways.

Wu, Manmatha, Smola and Krähenbühl, "Sampling matters in deep embedding learning", 2017.
Positives are the other augmentations of the same image.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from multigrain_jax.losses.groups import in_groups
from multigrain_jax.ops.distances import pairwise_squared_distances
from multigrain_jax.ops.dtypes import at_least_float32

NEGATIVE_SAMPLINGS = ("reference", "distance_weighted")

NEAREST = 0.5  # smaller distances count as this one
FARTHEST = 1.4  # negatives from here on are never drawn
# Below this logarithm the original's float32 exponential is zero, subnormals included.
REFERENCE_UNDERFLOW = -103.97


class Pairs(NamedTuple):
    """Positives and negatives of every sample of a batch; row i is anchor i.

    Attributes:
        positive: int32 [B, K], indices into the batch.
        negative: int32 [B, K].
        mask: bool [B, K], False where there is no pair.
    """

    positive: jax.Array
    negative: jax.Array
    mask: jax.Array


def negative_log_weights(
    normalized: jax.Array, instance_ids: jax.Array, *, negative_sampling: str
) -> jax.Array:
    """Log-probabilities, up to a constant per row, of drawing j as anchor i's negative.

    log w = (2 - D) log d - (D - 3)/2 log(1 - d²/4), d the distance of unit vectors.
    "distance_weighted": this formula over other instances with d < 1.4. "reference":
    what the original computes, exp(log w - max log w) in float32: where that is zero
    there is no candidate. A row without candidates is uniform over other instances.

    Args:
        normalized: [G, D] unit vectors of one sampling group.
        instance_ids: int32 [G]; a sample below 0 is of no instance, and never drawn.
        negative_sampling: one of `NEGATIVE_SAMPLINGS`.

    Returns:
        [G, G] in at least float32, -inf where j is never drawn; a row of -inf where
        the group holds no other instance.

    Raises:
        ValueError: an unknown `negative_sampling`.
    """
    if negative_sampling not in NEGATIVE_SAMPLINGS:
        raise ValueError(
            f"negative_sampling: found {negative_sampling!r}, expected one of "
            f"{', '.join(NEGATIVE_SAMPLINGS)}"
        )
    group, dim = normalized.shape
    squared = pairwise_squared_distances(normalized)
    itself = jnp.eye(group, dtype=bool)
    # The original's diagonal has distance 1 and takes part in the maximum below.
    distance = jnp.sqrt(jnp.where(itself, 1.0, squared))
    clamped = jnp.maximum(distance, NEAREST)
    # Antipodal vectors: 1 - d²/4 is 0; the smallest positive number keeps it finite.
    sine = jnp.maximum(1 - clamped * clamped / 4, jnp.finfo(squared.dtype).tiny)
    log_weight = (2.0 - dim) * jnp.log(clamped) - (dim - 3) / 2 * jnp.log(sine)
    seen = instance_ids >= 0
    other = (instance_ids[:, None] != instance_ids[None, :]) & seen[None, :]
    candidate = other & (distance < FARTHEST)
    if negative_sampling == "reference":
        both_seen = seen[:, None] & seen[None, :]
        log_weight = log_weight - jnp.max(log_weight, where=both_seen, initial=-jnp.inf)
        candidate &= log_weight > REFERENCE_UNDERFLOW
    weighted = jnp.where(candidate, log_weight, -jnp.inf)
    uniform = jnp.where(other, 0.0, -jnp.inf)
    return jnp.where(jnp.any(candidate, axis=1, keepdims=True), weighted, uniform)


def sample_pairs(
    key: jax.Array,
    normalized: jax.Array,
    instance_ids: jax.Array,
    *,
    negative_sampling: str,
    group_size: int,
    max_positives: int,
) -> Pairs:
    """Positives and drawn negatives of a batch, inside groups of consecutive samples.

    Each anchor draws as many negatives as it has positives, without replacement, or
    with replacement where there are fewer candidates; the k-th positive goes with the
    k-th negative. No gradient flows through the choice.

    Args:
        key: randomness.
        normalized: [B, D] unit vectors.
        instance_ids: int32 [B]; samples with the same id are positives; those with one
            below 0 are of no instance, and in no pair.
        negative_sampling: one of `NEGATIVE_SAMPLINGS`.
        group_size: divides B; a smaller batch is one group.
        max_positives: K, the most positives that are looked at per anchor.

    Returns:
        `Pairs` of [B, min(K, group size - 1)], at least one column. An anchor without
        positives, or with no other instance in its group, has no pair.

    Raises:
        ValueError: `group_size` does not divide B, or an unknown `negative_sampling`.
    """
    batch = len(normalized)
    groups, group_ids = in_groups(
        jax.lax.stop_gradient(normalized), instance_ids, group_size=group_size
    )
    group = groups.shape[1]
    num_draws = max(1, min(max_positives, group - 1))
    dtype = at_least_float32(normalized.dtype)
    noise_shape = (batch // group, 1 + num_draws, group, group)
    sample_group = partial(_sample_group, negative_sampling=negative_sampling)
    pairs = jax.vmap(sample_group)(
        jax.random.gumbel(key, noise_shape, dtype),
        groups,
        group_ids,
    )
    first = jnp.arange(0, batch, group, dtype=jnp.int32)[:, None, None]
    return Pairs(
        (pairs.positive + first).reshape(batch, -1),
        (pairs.negative + first).reshape(batch, -1),
        pairs.mask.reshape(batch, -1),
    )


def _sample_group(
    noise: jax.Array,
    normalized: jax.Array,
    instance_ids: jax.Array,
    *,
    negative_sampling: str,
) -> Pairs:
    """Pairs of one group, indices into the group; Gumbel noise [1 + K, G, G]."""
    num_draws, group = noise.shape[0] - 1, noise.shape[1]
    same = instance_ids[:, None] == instance_ids[None, :]
    is_positive = same & ~jnp.eye(group, dtype=bool) & (instance_ids >= 0)[:, None]
    num_positives = jnp.sum(is_positive, axis=1, dtype=jnp.int32)[:, None]
    # top_k of the negated index lists the positives in ascending order.
    index = jnp.arange(group, dtype=jnp.int32)
    order, _ = jax.lax.top_k(jnp.where(is_positive, -index[None, :], -group), num_draws)
    positive = jnp.minimum(-order, group - 1)

    log_weights = negative_log_weights(
        normalized, instance_ids, negative_sampling=negative_sampling
    )
    # The k largest of log-weight + Gumbel noise are k draws without replacement, the
    # largest under fresh noise is one independent draw.
    _, distinct = jax.lax.top_k(log_weights + noise[0], num_draws)
    repeated = jax.lax.argmax(log_weights[None] + noise[1:], 2, jnp.int32).T
    num_candidates = jnp.sum(log_weights > -jnp.inf, axis=1, dtype=jnp.int32)[:, None]
    enough = num_candidates >= jnp.minimum(num_positives, num_draws)
    negative = jnp.where(enough, distinct, repeated)
    wanted = jnp.arange(num_draws, dtype=jnp.int32)[None, :] < num_positives
    return Pairs(positive, negative, wanted & (num_candidates > 0))
