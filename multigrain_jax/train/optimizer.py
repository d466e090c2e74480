"""The optimiser: SGD as in PyTorch, a learning rate that drops, β on its own.

For batches of many thousands also LARS (You, Gitman and Ginsburg, "Large batch training
of convolutional networks", 2017) and LAMB (You et al., "Large batch optimization for
deep learning: training BERT in 76 minutes", 2020).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

OPTIMIZERS = ("sgd", "lars", "lamb")
TRUST_COEFFICIENT = 1e-3  # of LARS: how far a layer moves per step, over its norm
LAMB_SQUARES_DECAY, LAMB_EPSILON = 0.999, 1e-6
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
    optimizer: str = "sgd",
    momentum: float,
    weight_decay: float,
    decay_norms: bool = True,
    beta_learning_rate_factor: float = 1.0,
) -> optax.GradientTransformation:
    """SGD in PyTorch's order: decay joins the gradient, momentum, then the rate.

    Decay acts on every parameter, batch norm and biases too (unless `decay_norms` is
    False), but not on the margin's β, which has a learning-rate factor of its own.

    "lars" and "lamb" scale each kernel's update by the norm of the kernel over that of
    its update; scales, biases and β are neither scaled so nor decayed.

    Args:
        learning_rate: a number or a function of the step.
        optimizer: one of `OPTIMIZERS`.
        momentum: weight of the accumulated gradient, in [0, 1).
        weight_decay: factor of the parameter that is added to its gradient.
        decay_norms: whether norms' scales and all biases decay too, as the original
            has it; without: He et al., "Bag of tricks for image classification", 2019.
        beta_learning_rate_factor: β's learning rate over the common one.
    """
    beta_factor = optax.masked(
        optax.scale(beta_learning_rate_factor), lambda p: _mark(p, margin=True)
    )
    if optimizer == "lars":
        lars = optax.lars(
            learning_rate,
            weight_decay=weight_decay,
            weight_decay_mask=_weights,
            trust_coefficient=TRUST_COEFFICIENT,
            trust_ratio_mask=_weights,
            momentum=momentum,
        )
        return optax.chain(lars, beta_factor)
    if optimizer == "lamb":
        # As optax.lamb, which would scale the updates of scales and biases too.
        adam = optax.scale_by_adam(b1=momentum, b2=LAMB_SQUARES_DECAY, eps=LAMB_EPSILON)
        return optax.chain(
            _promoting(adam),
            optax.add_decayed_weights(weight_decay, mask=_weights),
            optax.masked(optax.scale_by_trust_ratio(), _weights),
            beta_factor,
            optax.scale_by_learning_rate(learning_rate),
        )
    return optax.chain(
        optax.add_decayed_weights(
            weight_decay,
            mask=lambda p: _mark(p, margin=False) if decay_norms else _weights(p),
        ),
        optax.trace(decay=momentum),
        beta_factor,
        optax.scale_by_learning_rate(learning_rate),
    )


def _promoting(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The same where types are not promoted: Optax raises a float to an integer."""

    def update(
        updates: Any, state: optax.OptState, params: Any = None
    ) -> tuple[Any, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


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
