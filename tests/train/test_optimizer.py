import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax.models.multigrain import abstract_model, split_model
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer
from multigrain_jax.trees import nested_to_tree, tree_to_nested


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


def lars_by_hand(w, g, slots, *, is_kernel, factor, step):
    """One update of LARS as the paper has it, with the momentum after the rate."""
    del step
    scale = 1.0
    if is_kernel:
        g = g + 0.01 * w
        scale = 1e-3 * np.linalg.norm(w) / np.linalg.norm(g)
    velocity = 0.9 * slots.get("v", 0.0) + 0.1 * scale * g
    return w - factor * velocity, {"v": velocity}


def lamb_by_hand(w, g, slots, *, is_kernel, factor, step):
    """One update of LAMB as the paper has it."""
    m = 0.9 * slots.get("m", 0.0) + 0.1 * g
    v = 0.999 * slots.get("v", 0.0) + 0.001 * g * g
    update = m / (1 - 0.9 ** (step + 1))
    update = update / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-6)
    if is_kernel:
        update = update + 0.01 * w
        update = update * np.linalg.norm(w) / np.linalg.norm(update)
    return w - 0.1 * factor * update, {"m": m, "v": v}


LEAVES = {"kernel": ("trunk", 1.0), "bias": ("trunk", 1.0), "beta": ("margin", 3.0)}


@pytest.mark.parametrize(
    ("name", "by_hand"), [("lars", lars_by_hand), ("lamb", lamb_by_hand)]
)
def test_large_batch_optimisers_equal_the_papers_written_out(name, by_hand):
    rng = np.random.default_rng(0)
    values = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=3)}
    values["beta"] = np.array(1.2)
    slots = {leaf: {} for leaf in LEAVES}

    def as_tree(leaves):
        tree = {}
        for leaf, (branch, _) in LEAVES.items():
            value = jnp.asarray(leaves[leaf], jnp.float32)
            tree.setdefault(branch, {})[leaf] = value
        return tree

    tx = make_optimizer(
        0.1,
        optimizer=name,
        momentum=0.9,
        weight_decay=0.01,
        beta_learning_rate_factor=3.0,
    )
    params = as_tree(values)
    state = tx.init(params)
    for step in range(4):
        gradients = {leaf: rng.normal(size=x.shape) for leaf, x in values.items()}
        changes, state = tx.update(as_tree(gradients), state, params)
        params = optax.apply_updates(params, changes)
        for leaf, (_, factor) in LEAVES.items():
            values[leaf], slots[leaf] = by_hand(
                values[leaf],
                gradients[leaf],
                slots[leaf],
                is_kernel=leaf == "kernel",
                factor=factor,
                step=step,
            )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5),
        params,
        as_tree(values),
    )
    # What a checkpoint holds of it comes back as it was.
    again = nested_to_tree(tree_to_nested(state), like=state, name="optimizer")
    jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_kernels_step_does_not_depend_on_its_gradients_size(name):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    params = {"trunk": {"kernel": kernel}}
    tx = make_optimizer(0.5, optimizer=name, momentum=0.0, weight_decay=0.0)
    steps = [
        tx.update({"trunk": {"kernel": kernel * 0 + size}}, tx.init(params), params)[0]
        for size in (1.0, 1000.0)
    ]
    first, second = (step["trunk"]["kernel"] for step in steps)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    share = 0.5 * (1e-3 if name == "lars" else 1.0)
    np.testing.assert_allclose(
        np.linalg.norm(first), share * np.linalg.norm(kernel), rtol=1e-5
    )
