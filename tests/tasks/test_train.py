"""The task `train` from config to results, on a folder of small made-up photos."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
from helpers.configs import small_train_config
from helpers.photos import write_noise_photos

from multigrain_jax.checkpoint import load_checkpoint, save_derived
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.inference import load_model
from multigrain_jax.lock import lock_workdir
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks.train import run
from multigrain_jax.train.recorder import Recorder

CLASSES = ("disc", "stripes", "dots")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two splits of three classes of noisy pictures."""
    root = tmp_path_factory.mktemp("photos")
    write_noise_photos(root / "train", CLASSES, count=14)
    write_noise_photos(root / "val", CLASSES, count=4, seed=1)
    return root


def metrics_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses_of(workdir):
    return {
        row["step"]: row["train/loss"]
        for row in metrics_of(workdir)
        if "train/loss" in row
    }


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """An uninterrupted run of 8 steps with a report."""
    workdir = tmp_path_factory.mktemp("finished")
    results = run(small_train_config(photos, report_split="val"), workdir)
    return workdir, results


def test_a_run_leaves_all_its_outputs(finished):
    workdir, results = finished
    for name in ("config.json", "metrics.jsonl", "results.json", "report.html"):
        assert (workdir / name).stat().st_size > 0, name
    assert {p.stem for p in (workdir / "plots").glob("*.png")} >= {
        "losses",
        "accuracies",
        "beta",
        "learning_rate",
        "norms",
    }
    assert list(workdir.glob("events.out.tfevents*"))
    assert json.loads((workdir / "results.json").read_text()) == results
    assert {"val/top1", "val/class_map", "val/copy_map", "seconds"} <= set(results)
    rows = metrics_of(workdir)
    assert "val/top1" in rows[0] and rows[0]["step"] == 0
    expected = {"step", "epoch", "train/loss", "train/cross_entropy", "train/margin"}
    expected |= {"train/beta", "train/top1", "train/images_per_second"}
    expected |= {"train/data_wait_fraction", "learning_rate"}
    expected |= {f"train/{of}_norm" for of in ("gradient", "parameter", "update")}
    assert expected <= set(rows[1])
    assert sorted(losses_of(workdir)) == list(range(1, 9))


def test_the_trained_model_loads_and_knows_its_classes(finished):
    model = load_model(finished[0])
    assert model.step == 8
    assert model.class_names == sorted(CLASSES)
    output = model(np.zeros((2, 33, 33, 3), np.float32))
    assert output.logits.shape == (2, 3)
    np.testing.assert_allclose(
        np.linalg.norm(output.normalized_embedding, axis=1), 1, rtol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_run_continues_bit_equal(photos, finished, tmp_path, stop):
    with pytest.raises(StoppedEarly, match=f"after step {stop} of 8"):
        run(small_train_config(photos, stop_at_step=stop), tmp_path)
    assert load_checkpoint(tmp_path).data["position"] == stop * 24
    run(small_train_config(photos), tmp_path)
    assert losses_of(tmp_path) == losses_of(finished[0])
    whole, resumed = load_checkpoint(finished[0]), load_checkpoint(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole.model, resumed.model)


def test_a_dry_run_writes_nothing(photos, tmp_path):
    workdir = tmp_path / "dry"
    run(small_train_config(photos, dry_run=True), workdir)
    assert not workdir.exists()


def test_a_fine_tune_starts_from_the_given_weights(photos, finished, tmp_path):
    config = small_train_config(
        photos,
        init_from=str(finished[0]),
        learning_rate=1e-12,
        weight_decay=0.0,
        num_epochs=1,
    )
    run(config, tmp_path)
    before, after = (
        load_checkpoint(path).model["params"]["trunk"]["conv1"]["kernel"]
        for path in (finished[0], tmp_path)
    )
    np.testing.assert_allclose(before, after, atol=1e-9)
    assert load_checkpoint(tmp_path).step == 4


def test_a_pretrained_trunk_is_taken_for_other_classes(
    photos, finished, tmp_path, capsys
):
    config = small_train_config(
        photos,
        pretrained_backbone=str(finished[0]),
        num_classes=5,
        learning_rate=1e-12,
        weight_decay=0.0,
        num_epochs=1,
        stop_at_step=1,
    )
    with pytest.raises(StoppedEarly):
        run(config, tmp_path)
    before, after = (
        load_checkpoint(path).model["params"] for path in (finished[0], tmp_path)
    )
    np.testing.assert_allclose(
        before["trunk"]["conv1"]["kernel"],
        after["trunk"]["conv1"]["kernel"],
        atol=1e-9,
    )
    assert "has 3 classes and 5 are wanted" in capsys.readouterr().out


def test_a_pretrained_trunk_needs_no_classifier(photos, finished, tmp_path, capsys):
    whole = load_checkpoint(finished[0])
    trunk = {"trunk": whole.model["params"]["trunk"]}
    source = dataclasses.replace(whole, meta={**whole.meta, "num_classes": 0})
    headless = {**whole.model, "params": trunk}
    save_derived(tmp_path / "headless", source, model=headless, record={})
    config = small_train_config(
        photos,
        pretrained_backbone=str(tmp_path / "headless"),
        learning_rate=1e-12,
        weight_decay=0.0,
        num_epochs=1,
        stop_at_step=1,
    )
    with pytest.raises(StoppedEarly):
        run(config, tmp_path / "run")
    assert "has 0 classes and 3 are wanted" in capsys.readouterr().out
    params = load_checkpoint(tmp_path / "run").model["params"]
    kernels = (params["trunk"]["conv1"]["kernel"], trunk["trunk"]["conv1"]["kernel"])
    np.testing.assert_allclose(*kernels, atol=1e-9)
    assert params["classifier"]["kernel"].shape[1] == 3


def test_a_resumed_run_says_that_crops_are_resized_otherwise(
    photos, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("cykooz_resizer")
    config = small_train_config(photos, stop_at_step=1)
    with pytest.raises(StoppedEarly):
        run(config, tmp_path)
    assert config.crop_resize == "auto"
    assert json.loads((tmp_path / "config.json").read_text())["crop_resize"] == "simd"
    monkeypatch.setattr(run_module, "resolve_crop_resize", lambda name: "pillow")
    with pytest.raises(StoppedEarly):
        run(small_train_config(photos, stop_at_step=2), tmp_path)
    assert "config changed: crop_resize: 'simd' -> 'pillow'" in capsys.readouterr().out


@pytest.mark.slow
def test_accumulation_runs(photos, tmp_path):
    config = small_train_config(photos, gradient_accumulation_steps=2, num_epochs=1)
    run(config, tmp_path)
    assert sorted(losses_of(tmp_path)) == [1, 2]


def test_bad_files_are_replaced_listed_and_limited(photos, tmp_path):
    root = tmp_path / "photos"
    for split in ("train", "val"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for path in (photos / split / name).iterdir():
                (root / split / name / path.name).symlink_to(path)
    bad = root / "train" / "dots" / "bad.png"
    bad.write_bytes(b"not an image")
    workdir = tmp_path / "work"
    run(small_train_config(root, num_epochs=1, max_skipped_fraction=0.05), workdir)
    lines = (workdir / "skipped.txt").read_text().splitlines()
    assert len(lines) == 1 and str(bad) in lines[0]
    for number in range(30):
        (root / "train" / "dots" / f"bad{number}.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1\d of 73 images.*at most 9(?s:.)*bad\d"):
        run(small_train_config(root, num_epochs=9), tmp_path / "strict")


def test_the_margin_of_the_config_counts(photos, finished, tmp_path):
    with pytest.raises(StoppedEarly):
        run(small_train_config(photos, margin=0.5, stop_at_step=1), tmp_path)
    # The first step's batch and weights are the same: only α differs.
    assert losses_of(tmp_path)[1] > losses_of(finished[0])[1]


def test_a_finished_run_stays_what_it_is(photos, finished, tmp_path, capsys):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished[0], workdir)
    before = json.loads((workdir / "config.json").read_text())
    run(small_train_config(photos, learning_rate=0.2, stop_at_step=9), workdir)
    printed = capsys.readouterr().out
    assert "nothing left to train" in printed and "resuming from" not in printed
    assert "config changed, without effect: learning_rate: 0.05 -> 0.2" in printed
    # What was not trained is not claimed; what is measured may change.
    after = json.loads((workdir / "config.json").read_text())
    assert after == before | {"report_split": None, "stop_at_step": 9}
    assert losses_of(workdir) == losses_of(finished[0])


def test_other_photos_of_equal_number_are_not_taken_for_those_of_the_run(
    photos, finished, tmp_path
):
    workdir, other = tmp_path / "workdir", tmp_path / "photos"
    shutil.copytree(finished[0], workdir)
    shutil.copytree(photos, other)
    run(small_train_config(other), workdir)  # a copy is the same
    for split in ("train", "val"):
        (other / split / "dots").rename(other / split / "holes")
    with pytest.raises(InputError, match="the classes are … 'holes', 'stripes',"):
        run(small_train_config(other), workdir)
    for split in ("train", "val"):
        (other / split / "holes").rename(other / split / "dots")
    (other / "train" / "dots" / "0.png").rename(other / "train" / "dots" / "00.png")
    with pytest.raises(InputError, match="the run was started with, but with other n"):
        run(small_train_config(other), workdir)
    run(small_train_config(other, allow_config_change=True), workdir)


def test_a_second_run_in_a_workdir_is_refused(photos, tmp_path):
    with (
        lock_workdir(tmp_path),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
    ):
        run(small_train_config(photos), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_run_whose_lock_is_taken_saves_its_state_apart_and_leaves(
    photos, finished, tmp_path, monkeypatch
):
    old, new = tmp_path / "old", tmp_path / "new"

    def take(recorder, step, metrics):
        (old / ".lock").unlink()
        (old / ".lock").write_text("process 1 on elsewhere")

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "log", take)
        with pytest.raises(StoppedEarly, match="in use by process 1 on elsewhere"):
            run(small_train_config(photos, stop_at_step=1), old)
    assert list((old / "checkpoints").iterdir()) == []
    new.mkdir()
    (apart,) = old.glob(f"checkpoints.*-{os.getpid()}")
    apart.rename(new / "checkpoints")
    run(small_train_config(photos), new)
    assert losses_of(new)[2] == losses_of(finished[0])[2]


REFUSED = {
    "no such folder": {"data": {"root": "/nowhere"}},
    "no such split": {"data": {"split": "holdout"}},
    "no such part to report": {"report_split": "holdout"},
    "fewer classes than images have": {"num_classes": 2},
    "no such checkpoint": {"init_from": "/nowhere"},
    "no such trunk": {"pretrained_backbone": "/nowhere"},
    "no such step": {"resume_step": 7},
    "no such list": {"data": {"list_file": "/nowhere.txt"}},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_run_leaves_no_workdir(photos, tmp_path, kind):
    with pytest.raises(InputError):
        run(small_train_config(photos, **REFUSED[kind]), tmp_path / "a" / "b" / "run")
    assert list(tmp_path.iterdir()) == []
