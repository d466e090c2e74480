"""The optimiser: SGD as in PyTorch, a learning rate that drops, β on its own."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

LEARNING_RATE_SCHEDULES = ("drops", "cosine")


def make_learning_rate(
    schedule: str,
    *,
    base: float,
    steps_per_epoch: int,
    num_epochs: int,
    drop_epochs: Sequence[int] = (),
    drop_factors: Sequence[float] = (),
    warmup_epochs: float = 0.0,
) -> Callable[[jax.Array | int], jax.Array]:
    """The learning rate as a function of the step.

    "drops": `base`, multiplied by the k-th of `drop_factors` once the 0-based epoch is
    greater than the k-th of `drop_epochs` (the first lower epoch is the one after).
    "cosine": from `base` to 0 over the run.

    Args:
        schedule: one of `LEARNING_RATE_SCHEDULES`.
        base: the learning rate at the start.
        steps_per_epoch: optimiser updates per epoch.
        num_epochs: epochs of the run.
        drop_epochs: 0-based epochs, for "drops".
        drop_factors: one factor for each of them.
        warmup_epochs: epochs over which the rate grows linearly from 0 first.
    """
    total = steps_per_epoch * num_epochs
    warmup = round(warmup_epochs * steps_per_epoch)

    def learning_rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step)
        if schedule == "cosine":
            done = (step - warmup).astype(jnp.float32) / max(1, total - warmup)
            rate = base * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
        else:
            rate = jnp.float32(base)
            for epoch, factor in zip(drop_epochs, drop_factors, strict=True):
                rate *= jnp.where(step >= (epoch + 1) * steps_per_epoch, factor, 1.0)
        if warmup:
            started = (step.astype(jnp.float32) + 1.0) / warmup
            rate = rate * jnp.minimum(started, 1.0)
        return rate

    return learning_rate


def make_optimizer(
    learning_rate: float | Callable[[Any], jax.Array],
    *,
    momentum: float,
    weight_decay: float,
    decay_norms: bool = True,
    beta_learning_rate_factor: float = 1.0,
) -> optax.GradientTransformation:
    """SGD in PyTorch's order: decay joins the gradient, momentum, then the rate.

    Decay acts on every parameter, batch norm and biases too (unless `decay_norms` is
    False), but not on the margin's β, which has a learning-rate factor of its own.

    Args:
        learning_rate: a number or a function of the step.
        momentum: weight of the accumulated gradient, in [0, 1).
        weight_decay: factor of the parameter that is added to its gradient.
        decay_norms: whether norms' scales and all biases decay too, as the original
            has it; without: He et al., "Bag of tricks for image classification", 2019.
        beta_learning_rate_factor: β's learning rate over the common one.
    """
    return optax.chain(
        optax.add_decayed_weights(
            weight_decay,
            mask=lambda p: _mark(p, margin=False) if decay_norms else _weights(p),
        ),
        optax.trace(decay=momentum),
        optax.masked(
            optax.scale(beta_learning_rate_factor), lambda p: _mark(p, margin=True)
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def _mark(params: Any, *, margin: bool) -> Any:
    """A tree of booleans: is the leaf part of the margin's parameters, or not."""
    return {
        name: jax.tree.map(lambda _, name=name: (name == "margin") == margin, branch)
        for name, branch in params.items()
    }


def _weights(params: Any) -> Any:
    """A tree of booleans: is the leaf a kernel, and neither scale, bias nor β.

    Every parameter of one axis is a norm's scale or a bias.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
