"""Runs with the options beyond the paper (docs/options.md), from config to results."""

import json

import jax
import numpy as np
import pytest
from helpers.configs import small_train_config
from helpers.photos import write_noise_photos

from multigrain_jax.checkpoint import describe_checkpoint, load_checkpoint
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.opened_model import open_model
from multigrain_jax.tasks.train import run

OPTIONS = {
    "label_smoothing": 0.1,
    "instance_loss": "infonce",
    "temperature": 0.2,
    "koleo_weight": 0.1,
    "ema_decay": 0.5,
    "decay_norms": False,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    write_noise_photos(root / "train", ("a", "b"), count=12)
    write_noise_photos(root / "val", ("a", "b"), count=3, seed=1)
    return root


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """An uninterrupted run of two epochs with all of them, and its results."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, run(
        small_train_config(photos, report_split="val", **OPTIONS), workdir
    )


def rows_of(workdir):
    return list(map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_every_part_of_the_loss_is_told(finished):
    rows = [row for row in rows_of(finished[0]) if "train/loss" in row]
    for row in rows:
        assert row["train/margin"] == 0 and row["train/infonce"] > 0
        expected = 0.5 * (row["train/cross_entropy"] + row["train/infonce"])
        expected += 0.1 * row["train/koleo"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert rows[-1]["train/beta"] == rows[0]["train/beta"]


@pytest.mark.slow
def test_the_average_is_scored_saved_and_taken(finished):
    workdir, results = finished
    for name in ("top1", "class_map", "copy_recall_at_1", "cross_entropy"):
        assert {f"val/{name}", f"val/ema_{name}"} <= results.keys()
    last = [row for row in rows_of(workdir) if "val/top1" in row][-1]
    assert last["val/cross_entropy"] != last["val/ema_cross_entropy"]
    checkpoint = load_checkpoint(workdir)
    assert checkpoint.digests["ema"].keys() == checkpoint.digests["model"].keys()
    params = [
        jax.device_get(open_model(workdir, raw=raw).variables.params)
        for raw in (False, True)
    ]
    differ = jax.tree.map(lambda a, b: np.any(a != b), *params)
    assert any(jax.tree.leaves(differ))


@pytest.mark.slow
def test_a_resumed_average_ends_bit_equal(photos, finished, tmp_path):
    config = small_train_config(photos, **OPTIONS)
    with pytest.raises(StoppedEarly):
        run(small_train_config(photos, stop_at_step=1, **OPTIONS), tmp_path)
    run(config, tmp_path)
    assert (
        describe_checkpoint(tmp_path).digest == describe_checkpoint(finished[0]).digest
    )
    scores = [
        {k: v for k, v in rows_of(path)[-1].items() if k.startswith("val/ema")}
        for path in (tmp_path, finished[0])
    ]
    assert scores[0] == scores[1] != {}
