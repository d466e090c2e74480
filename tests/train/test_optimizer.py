import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax.models.multigrain import abstract_model, split_model
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer


def rates(steps, **arguments):
    learning_rate = make_learning_rate("drops", **arguments)
    return [float(learning_rate(step)) for step in steps]


@pytest.mark.parametrize("name", ["train_lr", "train_lr_custom"])
def test_drops_equal_the_recorded_schedule(golden_dir, name):
    recorded = json.loads((golden_dir / "functional" / "discrete.json").read_text())
    golden = recorded[name]
    spe = 7
    got = rates(
        range(0, len(golden["lr"]) * spe),
        base=golden["base_lr"],
        steps_per_epoch=spe,
        num_epochs=len(golden["lr"]),
        drop_epochs=golden["drops"],
        drop_factors=golden["factors"],
    )
    np.testing.assert_allclose(got, np.repeat(golden["lr"], spe), rtol=1e-6)


def test_cosine_ends_at_zero_and_warms_up():
    learning_rate = make_learning_rate(
        "cosine", base=2.0, steps_per_epoch=10, num_epochs=10, warmup_epochs=1
    )
    assert float(learning_rate(0)) == pytest.approx(0.2)
    assert float(learning_rate(9)) == pytest.approx(2.0)
    assert float(learning_rate(55)) == pytest.approx(1.0)
    assert float(learning_rate(100)) == pytest.approx(0.0, abs=1e-6)


def test_updates_equal_pytorch_sgd_written_out():
    params = {
        "trunk": {"bias": jnp.array([1.0, -2.0])},
        "margin": {"beta": jnp.array(1.2)},
    }
    tx = make_optimizer(
        0.1, momentum=0.9, weight_decay=0.01, beta_learning_rate_factor=3.0
    )
    state = tx.init(params)
    bias, beta = np.array([1.0, -2.0]), 1.2
    bias_velocity, beta_velocity = np.zeros(2), 0.0
    for step in range(4):
        gradients = jax.tree.map(lambda p, s=step: p * 0 + 0.5 + s, params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        bias_velocity = 0.9 * bias_velocity + (0.5 + step + 0.01 * bias)
        beta_velocity = 0.9 * beta_velocity + (0.5 + step)
        bias = bias - 0.1 * bias_velocity
        beta = beta - 0.1 * 3.0 * beta_velocity
    np.testing.assert_allclose(params["trunk"]["bias"], bias, rtol=1e-5)
    np.testing.assert_allclose(params["margin"]["beta"], beta, rtol=1e-5)


def leaves_that_decay(params, **options):
    """The names of the leaves that change where the gradient is zero."""
    tx = make_optimizer(0.1, momentum=0.9, weight_decay=0.01, **options)
    gradients = jax.tree.map(jnp.zeros_like, params)
    changes, _ = tx.update(gradients, tx.init(params), params)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, change in jax.tree_util.tree_leaves_with_path(changes)
        if np.any(change)
    }


# Each kind of layer is in one of them.
@pytest.mark.parametrize("backbone", ["tiny", "senet154", "nasnetamobile"])
def test_kernels_alone_decay_without_norms(backbone):
    model = abstract_model(
        backbone, num_classes=3, pooling_exponent=1.0, dtype=jnp.float32
    )
    _, variables = split_model(model)
    # Only the number of axes counts; the arrays themselves are large.
    params = jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim), variables.params)
    params["margin"] = {"beta": jnp.ones(())}
    names = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    kernels = {name for name in names if name.endswith(".kernel")}
    assert {name.split(".")[-1] for name in names - kernels} == {
        "scale",
        "bias",
        "beta",
    }
    assert leaves_that_decay(params, decay_norms=False) == kernels
    assert leaves_that_decay(params) == names - {"margin.beta"}
