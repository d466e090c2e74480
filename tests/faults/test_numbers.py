"""Losses that break, special batches, and the record of samples."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import fault_config

from multigrain_jax.checkpoint import checkpoint_steps, load_checkpoint
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.losses.joint import joint_loss
from multigrain_jax.losses.sampling import NEGATIVE_SAMPLINGS, sample_pairs
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks.train import run
from multigrain_jax.train.loop import NonFiniteLossError


def break_step(monkeypatch, number, spoil):
    """`spoil` changes what the given training step returns."""
    real = run_module.make_step

    def make_step(config, built):
        train_step = real(config, built)

        def step(state, batch):
            state, metrics = train_step(state, batch)
            counted.append(0)
            if len(counted) != number:
                return state, metrics
            with jax.transfer_guard("allow"):
                return spoil(state, metrics)

        return step

    counted = []
    monkeypatch.setattr(run_module, "make_step", make_step)


def nan_loss(state, metrics):
    return state, {**metrics, "loss": metrics["loss"] * np.float32("nan")}


def infinite_beta(state, metrics):
    params = {**state.params, "margin": {"beta": state.params["margin"]["beta"] / 0}}
    return type(state)(**{**vars(state), "params": params}), metrics


def samples_of(workdir):
    lines = (Path(workdir) / "sample_ids.jsonl").read_text().splitlines()
    return {row["step"]: row["sample_ids"] for row in map(json.loads, lines)}


def test_a_nan_loss_ends_the_run_with_all_that_helps(photos, tmp_path, monkeypatch):
    break_step(monkeypatch, 7, nan_loss)
    config = fault_config(photos, log_every_steps=4, log_sample_ids=True)
    with pytest.raises(NonFiniteLossError) as error:
        run(config, tmp_path)
    message = str(error.value)
    assert "the loss is nan at step 7 (steps 6 to 8 were looked at)" in message
    assert f"last good checkpoint: {tmp_path / 'checkpoints' / '5'}" in message
    assert "resume_step" in message
    batch = json.loads((tmp_path / "non_finite_batch.json").read_text())
    assert str(tmp_path / "non_finite_batch.json") in message
    assert batch["step"] == 7
    assert batch["sample_ids"] == samples_of(tmp_path)[7]
    assert all(Path(path).exists() for path in batch["images"].values())
    assert {str(index) for index in batch["sample_ids"]} == set(batch["images"])


def test_no_state_after_a_nan_is_saved(photos, tmp_path, monkeypatch):
    break_step(monkeypatch, 9, nan_loss)
    # The next log would be at step 100; the save at step 10 must not wait for it.
    with pytest.raises(NonFiniteLossError, match="step 9"):
        run(fault_config(photos, log_every_steps=100), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [5]


def test_no_broken_parameter_is_saved(photos, tmp_path, monkeypatch):
    break_step(monkeypatch, 10, infinite_beta)
    with pytest.raises(NonFiniteLossError, match="parameter is NaN or infinite after"):
        run(fault_config(photos), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [5]


def test_the_record_of_samples_forgets_what_is_done_anew(photos, tmp_path):
    config = fault_config(photos, log_sample_ids=True)
    run(config, tmp_path)
    whole = (tmp_path / "sample_ids.jsonl").read_text()
    assert sorted(samples_of(tmp_path)) == list(range(1, 11))
    with pytest.raises(StoppedEarly):
        run(
            fault_config(photos, log_sample_ids=True, resume_step=5, stop_at_step=7),
            tmp_path,
        )
    assert sorted(samples_of(tmp_path)) == list(range(1, 8))
    run(config, tmp_path)
    assert (tmp_path / "sample_ids.jsonl").read_text() == whole


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


RNG = np.random.default_rng(0)
RANDOM = unit(RNG.normal(size=(12, 64)))
PAIR = unit(RNG.normal(size=(1, 64)))
# Embeddings, instances, size of the sampling groups.
BATCHES = {
    "duplicate images": (np.repeat(RANDOM[:4], 3, axis=0), np.arange(12) // 3, 12),
    "all the same": (np.repeat(PAIR, 12, axis=0), np.arange(12) // 3, 12),
    "antipodal": (np.tile(np.concatenate([PAIR, -PAIR]), (6, 1)), np.arange(12), 12),
    "no negatives": (RANDOM, np.zeros(12), 12),
    "no positives": (RANDOM, np.arange(12), 12),
    "some groups without": (RANDOM, np.array([0] * 6 + [1, 2, 3, 4, 5, 6]), 6),
    "batch of one group": (RANDOM, np.arange(12) // 3, 100),
    "zero embeddings": (np.zeros((12, 64)), np.arange(12) // 3, 12),
    "one sample": (RANDOM[:1], np.zeros(1), 12),
}


@pytest.mark.parametrize("sampling", NEGATIVE_SAMPLINGS)
@pytest.mark.parametrize("name", BATCHES)
def test_special_batches_have_finite_losses_and_gradients(name, sampling):
    embeddings, instances, group_size = BATCHES[name]
    instances = jnp.asarray(instances, jnp.int32)

    def loss(embeddings, beta):
        pairs = sample_pairs(
            jax.random.key(0),
            embeddings,
            instances,
            negative_sampling=sampling,
            group_size=group_size,
            max_positives=2,
        )
        logits = embeddings[:, :3]
        return joint_loss(
            logits, instances % 3, embeddings, pairs, beta, classification_weight=0.5
        ).loss

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(
        jnp.asarray(embeddings, jnp.float32), jnp.float32(1.2)
    )
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("images", ["one class", "one image"])
def test_the_smallest_data_sets_train(photos, tmp_path, images):
    root = tmp_path / "data"
    folder = root / "train" / "disc"
    folder.mkdir(parents=True)
    for path in sorted((photos / "train" / "disc").iterdir()):
        (folder / path.name).symlink_to(path)
        if images == "one image":
            break
    config = fault_config(root, num_epochs=1, epoch_len_factor=2.0)
    with pytest.raises(InputError, match="one class, 'disc', from which cross-entropy"):
        run(config, tmp_path / "work")
    config.classification_weight = 0.0
    if images == "one image":
        with pytest.raises(InputError, match="found one instance in all"):
            run(config, tmp_path / "work")
        return
    run(config, tmp_path / "work")
    rows = (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(row)["train/loss"]) for row in rows)
    assert load_checkpoint(tmp_path / "work").step == len(rows)


def test_one_repetition_without_a_margin_is_explained(photos, tmp_path):
    with pytest.raises(InputError, match=r"no positives.*classification_weight to 1"):
        run(fault_config(photos, num_repeats=1), tmp_path)
