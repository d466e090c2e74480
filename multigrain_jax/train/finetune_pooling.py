"""Fine-tuning of the pooling exponent alone (MultiGrain, section 3.4).

The trunk only runs forward: the one gradient is that of p, through the pooling and the
classifier. Batch norm and dropout are in evaluation mode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from multigrain_jax.models.multigrain import Variables, merge_model

MOMENTUM = 0.9
LEARNING_RATE = 0.005
DECAY_POWER = 0.9


class PoolingState(NamedTuple):
    """The exponent p, a scalar, and the optimiser's state for it."""

    exponent: jax.Array
    opt_state: optax.OptState


PoolingStep = Callable[
    [PoolingState, Variables, jax.Array, jax.Array],
    tuple[PoolingState, dict[str, jax.Array]],
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


def create_pooling_state(
    exponent: float | jax.Array, tx: optax.GradientTransformation, *, dtype: Any
) -> PoolingState:
    """The state at the start, with p = `exponent` as an array of `dtype`."""
    start = jnp.asarray(exponent, dtype)
    return PoolingState(start, tx.init(start))


def make_pooling_step(
    graphdef: nnx.GraphDef, tx: optax.GradientTransformation
) -> PoolingStep:
    """Compile `(state, variables, images, labels) -> (state, metrics)`.

    Args:
        graphdef: the model's evaluation structure.
        tx: from `make_pooling_optimizer`.

    Returns:
        The compiled function; images are [B, H, W, 3], normalised, labels int32 [B].
        The metrics are scalars: `cross_entropy`, the gradient `pooling_exponent_grad`,
        and `pooling_exponent` after the update.
    """

    @jax.jit
    def step(
        state: PoolingState, variables: Variables, images: jax.Array, labels: jax.Array
    ) -> tuple[PoolingState, dict[str, jax.Array]]:
        model = merge_model(graphdef, variables)
        features = jax.lax.stop_gradient(model.features(images))

        def cross_entropy(exponent: jax.Array) -> jax.Array:
            logits = model.head(features, exponent=exponent).logits
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses)

        loss, gradient = jax.value_and_grad(cross_entropy)(state.exponent)
        updates, opt_state = tx.update(gradient, state.opt_state, state.exponent)
        exponent: Any = optax.apply_updates(state.exponent, updates)
        metrics = {
            "cross_entropy": loss,
            "pooling_exponent_grad": gradient,
            "pooling_exponent": exponent,
        }
        return PoolingState(exponent, opt_state), metrics

    return step
