"""What training carries from step to step: one tree of plain arrays."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from multigrain_jax.losses.margin import BETA_INIT
from multigrain_jax.models.multigrain import (
    MultiGrain,
    Variables,
    split_model,
    variables_of,
)
from multigrain_jax.train.ema import start_average


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of training.

    Attributes:
        step: int32 scalar, optimiser updates done.
        params: nested dictionaries: the model's, and `params["margin"]["beta"]`.
        batch_stats: running means and variances of the batch norms.
        pooling_exponent: the scalar p, constant in joint training.
        opt_state: the optimiser's state.
        ema: "params" and "batch_stats" averaged over the updates; None: not kept.
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    pooling_exponent: jax.Array
    opt_state: optax.OptState
    ema: dict[str, Any] | None = None


def create_state(
    variables: Variables, tx: optax.GradientTransformation, *, beta: float = BETA_INIT
) -> TrainState:
    """A state at step 0 with a fresh optimiser.

    Args:
        variables: the model's arrays.
        tx: the optimiser.
        beta: the margin's starting threshold (1.2 in the paper).
    """
    dtype = variables.pooling_exponent.dtype
    params = {**variables.params, "margin": {"beta": jnp.asarray(beta, dtype)}}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.batch_stats,
        pooling_exponent=variables.pooling_exponent,
        opt_state=tx.init(params),
    )


def with_average(state: TrainState) -> TrainState:
    """The state with a running average that begins at its weights."""
    return replace(state, ema=start_average(state.params, state.batch_stats))


def model_variables(state: TrainState) -> Variables:
    """The model's arrays in a train state, without the margin's."""
    return variables_of(checkpoint_model(state))


def average_variables(state: TrainState) -> Variables | None:
    """The model's arrays averaged over the updates; None where that is not kept."""
    item = checkpoint_average(state)
    return None if item is None else variables_of(item)


def split_for_training(
    model: MultiGrain,
) -> tuple[nnx.GraphDef, nnx.GraphDef, Variables]:
    """The two structures of a model, for training and for evaluation, and its arrays.

    Batch norm and dropout behave differently in the two; their arrays are the same.
    """
    model.eval()
    eval_graphdef, _ = split_model(model)
    model.train()
    train_graphdef, variables = split_model(model)
    return train_graphdef, eval_graphdef, variables


@jax.jit
def all_finite(state: TrainState) -> jax.Array:
    """Whether the state holds neither NaN nor infinity: a bool scalar."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def checkpoint_model(state: TrainState) -> dict[str, Any]:
    """The `model` item of a checkpoint."""
    return {
        "params": state.params,
        "batch_stats": state.batch_stats,
        "pooling_exponent": state.pooling_exponent,
    }


def checkpoint_average(state: TrainState) -> dict[str, Any] | None:
    """The `ema` item of a checkpoint, which has the shape of `model`; None: no item."""
    if state.ema is None:
        return None
    return {**state.ema, "pooling_exponent": state.pooling_exponent}
