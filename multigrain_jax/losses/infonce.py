"""InfoNCE: every view is to be more similar to its instance's views than to others.

Oord, Li and Vinyals, "Representation learning with contrastive predictive coding",
2018; over views of a batch: Chen, Kornblith, Norouzi and Hinton, "A simple framework
for contrastive learning of visual representations", 2020 (NT-Xent).
"""

from functools import partial

import jax
import jax.numpy as jnp

from multigrain_jax.losses.groups import in_groups
from multigrain_jax.ops.dtypes import at_least_float32

# Less than any similarity over a temperature; an infinity would give NaN gradients.
NEVER = -1e30


def infonce_loss(
    normalized: jax.Array,
    instance_ids: jax.Array,
    *,
    temperature: float,
    group_size: int,
) -> jax.Array:
    """Mean over anchors of the mean over positives p of -log softmax of s_p / τ.

    Positives are the anchor's other views in its group, negatives all of other
    instances there. Several positives are averaged: each competes with the negatives
    alone, so that the views of an instance do not repel each other (in SupCon, Khosla
    et al. 2020, they do). With two views per instance this is NT-Xent.

    Args:
        normalized: [B, D] unit vectors.
        instance_ids: int32 [B]; samples with the same id are views of one instance,
            those with one below 0 of none: they do not count.
        temperature: τ.
        group_size: divides B; a smaller batch is one group.

    Returns:
        A scalar in at least float32. Anchors without a positive or a negative do not
        count; 0 where none does.

    Raises:
        ValueError: `group_size` does not divide B.
    """
    groups, ids = in_groups(normalized, instance_ids, group_size=group_size)
    losses, counts = jax.vmap(partial(_of_group, temperature=temperature))(groups, ids)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1.0)


def _of_group(
    normalized: jax.Array, instance_ids: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The sum of the anchors' losses and their number, of one group."""
    x = normalized.astype(at_least_float32(normalized.dtype))
    scores = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST) / temperature
    same = instance_ids[:, None] == instance_ids[None, :]
    seen = instance_ids >= 0
    positive = same & ~jnp.eye(len(x), dtype=bool) & seen[:, None]
    passed = same | ~seen[None, :]
    negatives = jax.nn.logsumexp(
        jnp.where(passed, NEVER, scores), axis=1, keepdims=True
    )
    terms = jnp.where(positive, jax.nn.softplus(negatives - scores), 0.0)
    num_positives = jnp.sum(positive, axis=1).astype(x.dtype)
    counts = (num_positives > 0) & ~jnp.all(passed, axis=1)
    losses = jnp.sum(terms, axis=1) / jnp.maximum(num_positives, 1.0)
    return jnp.sum(jnp.where(counts, losses, 0.0)), jnp.sum(counts).astype(x.dtype)
