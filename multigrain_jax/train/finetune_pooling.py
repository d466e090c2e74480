"""Fine-tuning of the pooling exponent alone (MultiGrain, section 3.4).

The trunk only runs forward: the one gradient is that of p, through the pooling and the
classifier. Batch norm and dropout are in evaluation mode.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import (
    MultiGrain,
    Variables,
    class_logits,
    merge_model,
)

MOMENTUM = 0.9
LEARNING_RATE = 0.005
DECAY_POWER = 0.9

EvalBatch = Mapping[str, jax.Array]
# (model in evaluation mode, batch) -> the trunk's output
MakeFeatures = Callable[[MultiGrain, EvalBatch], FeatureMap]


class PoolingState(NamedTuple):
    """The exponent p, a scalar, and the optimiser's state for it."""

    exponent: jax.Array
    opt_state: optax.OptState


PoolingStep = Callable[
    [PoolingState, Variables, EvalBatch], tuple[PoolingState, dict[str, jax.Array]]
]


def make_pooling_optimizer(
    num_steps: int, *, base: float = LEARNING_RATE
) -> optax.GradientTransformation:
    """SGD with momentum 0.9 and a rate of base · (1 - i/n)^0.9 at step i of n.

    Args:
        num_steps: n, the steps of the one pass.
        base: the rate at the start.
    """

    def learning_rate(step: Any) -> jax.Array:
        left = 1.0 - jnp.asarray(step).astype(jnp.float32) / num_steps
        return base * jnp.maximum(left, 0.0) ** DECAY_POWER

    return optax.sgd(learning_rate, momentum=MOMENTUM)


def make_pooling_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    *,
    make_features: MakeFeatures,
    compiler_options: Mapping[str, str | bool] | None = None,
) -> PoolingStep:
    """Compile `(state, variables, batch) -> (state, metrics)`.

    Args:
        graphdef: the model's evaluation structure.
        tx: from `make_pooling_optimizer`.
        make_features: runs the trunk; no gradient is computed for it.
        compiler_options: XLA's, for this program alone.

    Returns:
        The compiled function. Besides what `make_features` needs, a batch has `label`
        int32 [B] and `mask` bool [B]; rows that are masked out (padding, unreadable
        images) do not count. The metrics are scalars: `cross_entropy`, the gradient
        `pooling_exponent_grad`, and `pooling_exponent` after the update.
    """

    def step(
        state: PoolingState, variables: Variables, batch: EvalBatch
    ) -> tuple[PoolingState, dict[str, jax.Array]]:
        model = merge_model(graphdef, variables)
        features = make_features(model, batch)
        counts = batch["mask"].astype(state.exponent.dtype)

        def cross_entropy(exponent: jax.Array) -> jax.Array:
            logits = class_logits(model.head(features, exponent=exponent).logits)
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.maximum(batch["label"], 0)
            )
            return jnp.sum(losses * counts) / jnp.maximum(jnp.sum(counts), 1.0)

        loss, gradient = jax.value_and_grad(cross_entropy)(state.exponent)
        updates, opt_state = tx.update(gradient, state.opt_state, state.exponent)
        exponent: Any = optax.apply_updates(state.exponent, updates)
        metrics = {
            "cross_entropy": loss,
            "pooling_exponent_grad": gradient,
            "pooling_exponent": exponent,
        }
        return PoolingState(exponent, opt_state), metrics

    return jax.jit(step, compiler_options=dict(compiler_options or {}))


def finetune_pooling(
    step: PoolingStep,
    variables: Variables,
    batches: Iterable[EvalBatch],
    *,
    tx: optax.GradientTransformation,
    exponent: float,
    fetch_every: int,
) -> Generator[dict[str, float]]:
    """One pass over the batches; yields each step's metrics.

    Args:
        step: from `make_pooling_step`.
        variables: the model's arrays, which stay as they are.
        batches: on the devices.
        tx: the optimiser of `step`.
        exponent: p at the start.
        fetch_every: the host waits for the devices after so many steps, and yields
            their metrics then.
    """
    start = jnp.asarray(exponent, variables.pooling_exponent.dtype)
    where = variables.pooling_exponent.sharding

    def put(leaf: Any) -> jax.Array:
        return jax.make_array_from_callback(
            np.shape(leaf), where, np.asarray(leaf).__getitem__
        )

    # Where the model's p is, on all hosts.
    state = jax.tree.map(put, PoolingState(start, tx.init(start)))
    waiting: list[dict[str, jax.Array]] = []
    for batch in batches:
        state, metrics = step(state, variables, batch)
        waiting.append(metrics)
        if len(waiting) == fetch_every:
            yield from _fetch(waiting)
            waiting = []
    yield from _fetch(waiting)


def _fetch(waiting: list[dict[str, jax.Array]]) -> Generator[dict[str, float]]:
    for metrics in jax.device_get(waiting):
        yield {name: float(value) for name, value in metrics.items()}
