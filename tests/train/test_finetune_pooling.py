"""Fine-tuning of p, against the trajectory recorded from the original."""

import contextlib
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.convert.state_dict import import_state_dict
from multigrain_jax.models.multigrain import create_model, merge_model, split_model
from multigrain_jax.train.finetune_pooling import (
    PoolingState,
    finetune_pooling,
    make_pooling_optimizer,
    make_pooling_step,
)

NUM_STEPS = 6


@pytest.fixture(scope="module")
def golden(golden_dir):
    return dict(np.load(golden_dir / "train" / "finetune_p_resnet18.npz"))


def test_the_rate_falls_as_recorded(golden_dir):
    recorded = json.loads((golden_dir / "functional" / "discrete.json").read_text())
    rates = recorded["finetune_p_lr"]["lr"]
    tx = make_pooling_optimizer(len(rates))
    state = tx.init(jnp.float32(0.0))
    velocity = 0.0
    for rate in rates:
        update, state = tx.update(jnp.float32(1.0), state)
        velocity = 0.9 * velocity + 1.0
        np.testing.assert_allclose(-update, rate * velocity, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("start", [3, 1])
@pytest.mark.parametrize(("kind", "tolerance"), [("f64", 1e-5), ("f32", 1e-5)])
def test_six_steps(golden, golden_dir, golden_weights, start, kind, tolerance):
    path = golden_dir / "manifests" / "resnet18.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes()))["entries"]
    x64 = jax.enable_x64(True) if kind == "f64" else contextlib.nullcontext()
    with x64:
        dtype = jnp.dtype("float64" if kind == "f64" else "float32")
        model = create_model("resnet18", pooling_exponent=float(start), dtype=dtype)
        model.eval()
        graphdef, _ = split_model(model)
        weights = golden_weights.state_dict(entries, 0, p=float(start))
        variables, _ = import_state_dict(weights, backbone="resnet18")
        variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
        tx = make_pooling_optimizer(NUM_STEPS)
        step = make_pooling_step(
            graphdef,
            tx,
            make_features=lambda model, batch: model.features(batch["image"]),
        )
        history = finetune_pooling(
            step,
            variables,
            (
                golden_batch(golden_weights, number, dtype)
                for number in range(NUM_STEPS)
            ),
            tx=tx,
            exponent=float(start),
            fetch_every=4,
        )
        for number, metrics in enumerate(history):
            for ours, theirs in (
                ("cross_entropy", "cross_entropy"),
                ("pooling_exponent_grad", "p_grad"),
                ("pooling_exponent", "p"),
            ):
                want = golden[f"p{start}/{kind}/{theirs}"]
                error = abs(metrics[ours] - want[number]) / np.abs(want).max()
                assert error < tolerance, (ours, number, error)
        assert number == NUM_STEPS - 1


def golden_batch(golden_weights, number, dtype):
    labels = golden_weights.rng_for(f"ftlabels{number}", 0).integers(0, 1000, 4)
    images = golden_weights.images(0, 96, 128, 4, f"ft{number}")
    return {
        "image": jnp.asarray(images, dtype),
        "label": jnp.asarray(labels, jnp.int32),
        "mask": jnp.ones(4, bool),
    }


def test_a_step_costs_little_more_than_a_forward_pass():
    model = create_model("resnet18", num_classes=10)
    model.eval()
    graphdef, variables = split_model(model)
    tx = make_pooling_optimizer(NUM_STEPS)

    def make_features(model, batch):
        return model.features(batch["image"])

    step = make_pooling_step(graphdef, tx, make_features=make_features)
    exponent = jnp.float32(3.0)
    batch = {
        "image": jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((4,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((4,), jnp.bool_),
    }

    @jax.jit
    def forward(variables, batch):
        model = merge_model(graphdef, variables)
        return model.head(make_features(model, batch)).logits

    state = PoolingState(exponent, tx.init(exponent))
    compiled = step.lower(state, variables, batch).compile()
    plain = forward.lower(variables, batch).compile()
    flops = [c.cost_analysis()["flops"] for c in (compiled, plain)]
    memory = [c.memory_analysis().temp_size_in_bytes for c in (compiled, plain)]
    # A backward pass through the trunk would triple the one and keep all activations.
    assert flops[0] < 1.05 * flops[1]
    assert memory[0] < 1.2 * memory[1] + 1e5
