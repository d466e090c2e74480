"""Five training steps of ResNet-18, against those recorded from the original."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.convert.state_dict import export_state_dict, import_state_dict
from multigrain_jax.losses.sampling import Pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import (
    create_state,
    model_variables,
    split_for_training,
)
from multigrain_jax.train.step import make_train_step

BATCH, REPEATS = 12, 3


@pytest.fixture(scope="module")
def golden(golden_dir):
    folder = golden_dir / "train"
    settings = json.loads((folder / "trajectory_resnet18.json").read_text())
    with np.load(folder / "trajectory_resnet18.npz") as arrays:
        return settings, dict(arrays)


def fixed_pairs(key, normalized, instance_ids):
    """The recorded negatives: for anchor i, two of the other instances by rule."""
    del key, normalized
    step = instance_ids[0] // 10
    anchor = jnp.arange(BATCH, dtype=jnp.int32)[:, None]
    first = anchor // REPEATS * REPEATS
    draws = (jnp.arange(2, dtype=jnp.int32)[None, :] + anchor + step) % (
        BATCH - REPEATS
    )
    negative = jnp.where(draws < first, draws, draws + REPEATS)
    within = jnp.arange(2, dtype=jnp.int32)[None, :]
    positive = first + jnp.where(within < anchor - first, within, within + 1)
    return Pairs(positive, negative, jnp.ones((BATCH, 2), bool))


def start(settings, golden_weights, *, dtype, learning_rate, weight_decay, steps):
    model = create_model("resnet18", num_classes=10, pooling_exponent=3.0, dtype=dtype)
    graphdef, _, _ = split_for_training(model)
    state_dict = golden_weights.state_dict(settings["entries"], 0, p=settings["p"])
    variables, _ = import_state_dict(state_dict, backbone="resnet18")
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
    tx = make_optimizer(
        learning_rate, momentum=settings["momentum"], weight_decay=weight_decay
    )
    mesh = make_mesh(1)
    step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=0,
        prepare_images=lambda key, images: images,
        select_pairs=fixed_pairs,
        classification_weight=settings["lambda_"],
        gradient_accumulation_steps=steps,
    )
    state = create_state(variables, tx, beta=settings["beta_init"])
    return mesh, step, put_replicated(mesh, state)


def batch_of(golden_weights, step, dtype):
    images, labels, instances = golden_weights.train_batch(0, step)
    return {
        "image": images.astype(dtype),
        "label": labels.astype(np.int32),
        "instance_id": instances.astype(np.int32),
    }


def check(got, want, tolerance):
    want = np.asarray(want)
    error = np.max(np.abs(np.asarray(got) - want)) / max(1.0, np.max(np.abs(want)))
    assert error < tolerance, f"{error:.3g}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"), [("f64", "float64", 1e-8), ("f32", "float32", 1e-4)]
)
def test_five_steps(golden, golden_weights, kind, dtype, tolerance):
    settings, arrays = golden
    x64 = jax.enable_x64(True) if kind == "f64" else contextlib.nullcontext()
    with x64:
        mesh, train_step, state = start(
            settings,
            golden_weights,
            dtype=jnp.dtype(dtype),
            learning_rate=settings["lr"],
            weight_decay=settings["weight_decay"],
            steps=1,
        )
        for step in range(settings["steps"]):
            batch = put_batch(mesh, batch_of(golden_weights, step, dtype))
            state, metrics = train_step(state, batch)
            for name in ("cross_entropy", "margin", "loss", "beta"):
                check(metrics[name], arrays[f"sum/{kind}/{name}"][step], tolerance)
            top1 = arrays[f"sum/{kind}/top1"][step] / 100
            assert float(metrics["top1"]) == pytest.approx(top1, abs=1e-6)
            exported = export_state_dict(model_variables(state), backbone="resnet18")
            norms = [np.linalg.norm(exported[k]) for k in settings["param_names"]]
            check(norms, arrays[f"sum/{kind}/param_norms"][step], tolerance)
            stats = [
                np.linalg.norm(exported[k]) for k in settings["running_stat_names"]
            ]
            check(stats, arrays[f"sum/{kind}/running_stat_norms"][step], tolerance)
        prefix = f"sum/{kind}/final/"
        finals = [k for k in arrays if k.startswith(prefix + "f") or "classifier" in k]
        for key in finals:
            if key.startswith(prefix):
                check(exported[key.removeprefix(prefix)], arrays[key], tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_accumulation_averages_what_the_original_sums(
    golden, golden_weights, backend, monkeypatch
):
    settings, arrays = golden
    # On other devices than the CPU it is a loop, which is checked here as well.
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with jax.enable_x64(True):
        # Doubling the rate turns our mean of two into the recorded sum; the decay,
        # which is added once, must then be halved.
        mesh, train_step, state = start(
            settings,
            golden_weights,
            dtype=jnp.float64,
            learning_rate=2 * float(arrays["accum2_lr"]),
            weight_decay=settings["weight_decay"] / 2,
            steps=2,
        )
        for update in range(2):
            pair = [batch_of(golden_weights, 2 * update + m, "float64") for m in (0, 1)]
            stacked = {name: np.stack([b[name] for b in pair]) for name in pair[0]}
            batch = put_batch(mesh, stacked, axis=1)
            if update == 0:
                program = train_step.lower(state, batch).as_text()
                assert ("stablehlo.while" in program) == (backend == "gpu")
            state, metrics = train_step(state, batch)
            both = slice(2 * update, 2 * update + 2)
            for name in ("cross_entropy", "margin", "loss"):
                want = arrays[f"accum2_sum/f64/{name}"][both].mean()
                check(metrics[name], want, 1e-8)
            exported = export_state_dict(model_variables(state), backbone="resnet18")
            norms = [np.linalg.norm(exported[k]) for k in settings["param_names"]]
            check(norms, arrays["accum2_sum/f64/param_norms"][update], 1e-8)
            stats = [
                np.linalg.norm(exported[k]) for k in settings["running_stat_names"]
            ]
            check(stats, arrays["accum2_sum/f64/running_stat_norms"][update], 1e-8)
        for key, value in arrays.items():
            name = key.removeprefix("accum2_sum/f64/final/")
            if name != key and name in exported:
                check(exported[name], value, 1e-8)
