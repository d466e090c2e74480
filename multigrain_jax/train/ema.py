"""A running average of the weights, which often scores better than the last ones.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; as
an exponential average: Tarvainen and Valpola, "Mean teachers are better role models",
2017.
"""

from typing import Any

import jax
import jax.numpy as jnp


def start_average(params: Any, batch_stats: Any) -> dict[str, Any]:
    """The average where it begins: the weights themselves, in memory of its own."""
    return jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})


def update_average(
    average: dict[str, Any],
    params: Any,
    batch_stats: Any,
    *,
    step: jax.Array,
    decay: float,
) -> dict[str, Any]:
    """The average after one more update: a + (1 - d) · (weights - a).

    d is the smaller of `decay` and (1 + step) / (10 + step), so that an average of a
    short run, or of the first steps, does not remember the start.

    Args:
        average: "params" and "batch_stats".
        params: the weights after the update.
        batch_stats: the running statistics after it.
        step: int32 scalar, updates before this one.
        decay: in [0, 1); 0 is the weights themselves.
    """
    done = step.astype(jnp.float32)
    share = 1 - jnp.minimum(jnp.float32(decay), (1 + done) / (10 + done))

    def towards(mean: jax.Array, now: jax.Array) -> jax.Array:
        return mean + share.astype(mean.dtype) * (now - mean)

    now = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(towards, average, now)
