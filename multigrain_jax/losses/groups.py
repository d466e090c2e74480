"""Groups of consecutive samples, inside which instances are compared.

They are part of the recipe, and do not depend on how many devices share a batch.
"""

import jax


def in_groups(
    normalized: jax.Array, instance_ids: jax.Array, *, group_size: int
) -> tuple[jax.Array, jax.Array]:
    """The batch in groups: [B, D] and [B] as [B / G, G, D] and [B / G, G].

    Args:
        normalized: [B, D] unit vectors.
        instance_ids: int32 [B].
        group_size: divides B; a smaller batch is one group.

    Raises:
        ValueError: `group_size` does not divide B.
    """
    batch, dim = normalized.shape
    group = min(group_size, batch)
    if batch % group:
        raise ValueError(
            f"sampling group size: found {group_size}, which does not divide the batch "
            f"of {batch}; choose a divisor"
        )
    return normalized.reshape(-1, group, dim), instance_ids.reshape(-1, group)
