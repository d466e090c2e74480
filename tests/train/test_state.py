"""What training carries from step to step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax.models.multigrain import create_model, merge_model
from multigrain_jax.train.state import (
    all_finite,
    average_variables,
    checkpoint_average,
    checkpoint_model,
    create_state,
    model_variables,
    split_for_training,
    with_average,
)


@pytest.fixture(scope="module")
def parts():
    """The structures in training and in evaluation, and the arrays."""
    return split_for_training(create_model("tiny", num_classes=3))


def test_the_two_structures_share_their_arrays(parts):
    training, evaluation, variables = parts
    modes = [merge_model(graph, variables) for graph in (training, evaluation)]
    assert [model.deterministic for model in modes] == [False, True]
    norms = [model.trunk.bn1.use_running_average for model in modes]
    assert norms == [False, True]


def test_a_fresh_state_holds_the_models_arrays_and_beta(parts):
    variables = parts[-1]
    tx = optax.trace(0.9)
    state = create_state(variables, tx, beta=1.5)
    assert (int(state.step), state.step.dtype) == (0, jnp.int32)
    assert state.params["margin"] == {"beta": 1.5}
    # β is an optimiser's parameter like the others.
    assert jax.tree.structure(state.opt_state.trace) == jax.tree.structure(state.params)
    found = model_variables(state)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert checkpoint_model(state).keys() == {
        "params",
        "batch_stats",
        "pooling_exponent",
    }


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["params", "batch_stats", "opt_state"])
def test_one_number_that_is_not_finite_is_found(parts, field, value):
    state = create_state(parts[-1], optax.trace(0.9))
    assert all_finite(state)
    leaves, structure = jax.tree.flatten(getattr(state, field))
    leaves[-1] = leaves[-1].at[(-1,) * leaves[-1].ndim].set(value)
    broken = dataclasses.replace(state, **{field: structure.unflatten(leaves)})
    assert not all_finite(broken)


def test_an_average_begins_at_the_weights_and_in_memory_of_its_own(parts):
    state = create_state(parts[-1], optax.trace(0.9))
    assert state.ema is average_variables(state) is checkpoint_average(state) is None
    averaged = with_average(state)
    item = checkpoint_average(averaged)
    assert jax.tree.structure(item) == jax.tree.structure(checkpoint_model(state))
    jax.tree.map(np.testing.assert_array_equal, item, checkpoint_model(state))
    jax.tree.map(np.testing.assert_array_equal, average_variables(averaged), parts[-1])
    # Both are donated to a step, which no buffer may be twice.
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(averaged)]
    assert len(set(places)) == len(places)
    leaves, structure = jax.tree.flatten(averaged.ema)
    leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].set(np.nan)
    assert not all_finite(
        dataclasses.replace(averaged, ema=structure.unflatten(leaves))
    )
