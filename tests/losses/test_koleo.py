"""KoLeo against a plain loop, and at its edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.instance_losses import (
    check_devices_change_nothing,
    check_samples_of_no_instance_do_not_count,
)

from multigrain_jax.losses.koleo import koleo_loss

IDS = np.repeat(np.arange(8, dtype=np.int32), 3)


@partial(jax.jit, static_argnames="group_size")
def value_and_gradient(x, ids, *, group_size=64):
    return jax.value_and_grad(koleo_loss)(x, ids, group_size=group_size)


def by_loop(x, ids, group_size):
    """The definition, sample by sample."""
    logs = []
    for i in range(len(x)):
        start = i // group_size * group_size
        others = [
            np.sum((x[i] - x[j]) ** 2)
            for j in range(start, min(start + group_size, len(x)))
            if ids[j] != ids[i]
        ]
        if others:
            logs.append(np.log(np.sqrt(min(others) + 1e-8)))
    return -np.mean(logs)


# Groups of 2 and 4 cut the instances, and some of 2 hold a single one.
@pytest.mark.parametrize("group_size", [2, 4, 12, 64])
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_the_loss_equals_a_loop(unit_rows, spread, group_size):
    x = unit_rows(24, 16, 0, spread=spread)
    found, gradient = value_and_gradient(x, IDS, group_size=group_size)
    expected = by_loop(x.astype(np.float64), IDS, group_size)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(gradient).all()


def test_a_step_down_drives_the_nearest_apart(unit_rows):
    x = unit_rows(24, 16, 1, spread=0.3)
    value, gradient = value_and_gradient(x, IDS)
    moved = x - 0.01 * np.asarray(gradient)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    assert value_and_gradient(moved, IDS)[0] < value


def test_duplicates_have_a_finite_gradient(unit_rows):
    x = unit_rows(24, 16, 2)
    x[3:] = x[3]  # all but one instance in one place
    value, gradient = value_and_gradient(x, IDS)
    assert 0 < value < 10  # -log of the root of 1e-8 is 9.2
    assert np.isfinite(gradient).all()
    nearly = x + 1e-6 * unit_rows(24, 16, 3)
    _, gradient = value_and_gradient(nearly, IDS)
    assert np.isfinite(gradient).all() and np.any(gradient)


def test_views_of_the_same_instance_do_not_count(unit_rows):
    x = unit_rows(24, 16, 4)
    value, _ = value_and_gradient(x, IDS)
    gathered = np.repeat(x[::3], 3, axis=0)  # each instance's views in one place
    expected = by_loop(gathered.astype(np.float64), IDS, 64)
    assert float(value_and_gradient(gathered, IDS)[0]) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(value) != pytest.approx(expected, rel=1e-3)


def test_a_single_instance_gives_zero_and_zero_gradients(unit_rows):
    value, gradient = value_and_gradient(unit_rows(6, 8, 5), np.zeros(6, np.int32))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_narrow_embeddings_give_a_float32_loss(unit_rows):
    x = jnp.asarray(unit_rows(24, 8, 6), jnp.bfloat16)
    assert value_and_gradient(x, IDS)[0].dtype == jnp.float32


@pytest.mark.parametrize("group_size", [4, 8])
def test_the_groups_decide_and_not_the_devices(unit_rows, group_size):
    x = unit_rows(24, 16, 7)
    check_devices_change_nothing(value_and_gradient, x, IDS, group_size=group_size)


def test_samples_of_no_instance_do_not_count(unit_rows):
    check_samples_of_no_instance_do_not_count(value_and_gradient, unit_rows(24, 16, 3))
