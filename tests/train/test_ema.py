"""The running average of the weights, alone and in the step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.train.ema import start_average, update_average
from multigrain_jax.train.state import create_state, split_for_training, with_average
from multigrain_jax.train.step import make_train_step


def test_the_average_equals_a_loop():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 3))
    with jax.enable_x64(True):
        average = start_average(
            {"kernel": jnp.asarray(weights[0])}, {"mean": jnp.asarray(-weights[0])}
        )
        for step, now in enumerate(weights[1:]):
            now = jnp.asarray(now)
            average = update_average(
                average,
                {"kernel": now},
                {"mean": -now},
                step=jnp.int32(step),
                decay=0.95,
            )
    expected = weights[0]
    for step, now in enumerate(weights[1:]):
        decay = min(0.95, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * now
    # The decay itself is a float32.
    np.testing.assert_allclose(average["params"]["kernel"], expected, rtol=1e-5)
    np.testing.assert_allclose(average["batch_stats"]["mean"], -expected, rtol=1e-5)


def test_without_decay_the_average_is_the_weights():
    old, new = {"a": jnp.float32(1.0)}, {"a": jnp.float32(0.3)}
    found = update_average(
        start_average(old, old), new, new, step=jnp.int32(99), decay=0.0
    )
    assert float(found["params"]["a"]) == pytest.approx(0.3, rel=1e-6)
    assert float(found["batch_stats"]["a"]) == pytest.approx(0.3, rel=1e-6)


def test_weights_that_stay_leave_the_average_where_it_is():
    weights = {"a": jnp.asarray(np.random.default_rng(0).normal(size=50), jnp.float32)}
    average = start_average(weights, {})
    for step in range(5):
        average = update_average(
            average, weights, {}, step=jnp.int32(step), decay=0.999
        )
    np.testing.assert_array_equal(average["params"]["a"], weights["a"])


BATCH = 16


def three_steps(devices, *, averaged):
    """The state after three steps of a small network, in float64."""
    model = create_model(
        "tiny", num_classes=3, dtype=jnp.float64, batch_norm_group_size=8
    )
    graphdef, _, variables = split_for_training(model)
    tx = optax.sgd(0.1)
    mesh = make_mesh(devices)
    train_step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=0,
        prepare_images=lambda key, images: images,
        select_pairs=lambda *_: None,
        classification_weight=1.0,
        ema_decay=0.5,
        compiler_options={"xla_backend_optimization_level": 0},
    )
    state = create_state(variables, tx)
    state = put_replicated(mesh, with_average(state) if averaged else state)
    seen = [jax.device_get((state.params, state.batch_stats))]
    for step in range(3):
        rng = np.random.default_rng(step)
        batch = {
            "image": rng.normal(size=(BATCH, 33, 33, 3)),
            "label": rng.integers(0, 3, BATCH).astype(np.int32),
            "instance_id": np.arange(BATCH, dtype=np.int32),
        }
        state, _ = train_step(state, put_batch(mesh, batch))
        seen.append(jax.device_get((state.params, state.batch_stats)))
    return seen, jax.device_get(state)


@pytest.mark.slow
def test_the_step_averages_on_any_number_of_devices_and_changes_nothing_else():
    with jax.enable_x64(True):
        seen, alone = three_steps(1, averaged=True)
        _, without = three_steps(1, averaged=False)
        _, eight = three_steps(8, averaged=True)
    assert without.ema is None
    jax.tree.map(np.testing.assert_array_equal, replace(alone, ema=None), without)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12),
        alone.ema,
        eight.ema,
    )
    params, stats = seen[0]
    expected = {"params": params, "batch_stats": stats}
    for step, (params, stats) in enumerate(seen[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        now = {"params": params, "batch_stats": stats}
        expected = jax.tree.map(
            lambda a, b, d=decay: d * a + (1 - d) * b, expected, now
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7),
        expected,
        alone.ema,
    )
    moved = jax.tree.map(lambda a, b: np.any(a != b), alone.ema["params"], seen[-1][0])
    assert moved["trunk"] and moved["classifier"]["kernel"]
