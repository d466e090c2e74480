"""A disk that is full, or fails, under what a run needs and under what it does not."""

import errno
import importlib
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from helpers.commands import ENVIRONMENT, mounted
from helpers.configs import fault_config, small_train_config
from helpers.descriptor_folders import all_found, contents, stamps
from helpers.descriptor_folders import embed as embed_stamps

from measure.commands import ROOT, command_line
from multigrain_jax import growing_file
from multigrain_jax.checkpoint import describe_checkpoint, store
from multigrain_jax.descriptors.folder import HEAD_FILE, read_head
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.growing_file import PASSING_ERRORS
from multigrain_jax.metric_writer import read_metrics
from multigrain_jax.pages import page, plots
from multigrain_jax.tasks import train
from multigrain_jax.train.recorder import Recorder


def test_pages_plots_and_lists_end_no_training(photos, tmp_path, monkeypatch, capsys):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "train" / "disc" / "readme.xyz").write_text("passed over")

    def failing(path, *, number):
        raise OSError(number, os.strerror(number), str(path))

    errors = {growing_file: errno.ENOSPC, page: errno.EROFS, plots: errno.EIO}
    monkeypatch.setattr(growing_file, "CLOSE_PATIENCE_S", 0.05)
    for module, number in errors.items():
        monkeypatch.setattr(module, "write_atomically", partial(failing, number=number))
    config = small_train_config(root, num_epochs=1, report_split="val", num_workers=0)
    results = train.run(config, tmp_path / "run")
    assert "val/copy_map" in results
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored.pop("num_notes") == len(stored.pop("passed_over")) == 1
    assert stored == results
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("WARNING")]
    names = [Path(line.split()[1]).name for line in failed]
    assert {"report.html", "learning_rate.png", "notes.txt"} <= set(names)
    assert all(" KiB free)" in line for line in failed)
    assert sum("the run goes on without it" in line for line in failed) > 5
    assert sum("entries could not be written and are lost" in x for x in failed) == 1
    for number in errors.values():
        assert any(os.strerror(number) in line for line in failed)
    assert len(set(failed)) == len(failed) <= 12, failed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 KiB."""
    with mounted(tmp_path / "disk", size="32k") as folder:
        yield folder


@pytest.mark.slow
def test_embed_on_a_full_disk_keeps_what_is_complete(
    small_disk, photos, tiny_checkpoint, tmp_path
):
    def embed(workdir):
        settings = {"init_from": tiny_checkpoint, "data.root": photos / "train"}
        settings |= {"test_size": 48, "batch_size": 8, "rows_per_shard": 5}
        return subprocess.run(
            command_line("embed", workdir, settings),
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )

    done = embed(small_disk)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: [Errno 28] No space left on device: ")
    assert str(small_disk / "descriptors") in line
    assert "KiB free; the same command goes on from what is complete" in line
    index = DescriptorIndex.open(small_disk)
    index.verify()
    assert 0 < len(index.live) < 33
    remount = ["mount", "-o", "remount,size=2m", str(small_disk)]
    subprocess.run(remount, check=True)
    assert embed(small_disk).returncode == 0
    assert json.loads((small_disk / "results.json").read_text())["num_images"] == 33
    DescriptorIndex.open(small_disk).verify()


def test_a_disk_that_fails_at_any_write_loses_no_descriptor(tmp_path, monkeypatch):
    """Every flush and rename in turn: the error names a file, and the next run ends."""
    images, whole = stamps(20), tmp_path / "whole"
    embed_stamps(whole, images)
    failing_at, calls, fsync = 0, 0, os.fsync

    def failing(original):
        def wrapped(*arguments):
            nonlocal calls
            calls += 1
            if calls > failing_at:
                number = PASSING_ERRORS[failing_at % len(PASSING_ERRORS)]
                if original is fsync:
                    raise OSError(number, os.strerror(number))
                one, other = map(str, arguments)
                raise OSError(number, os.strerror(number), one, None, other)
            return original(*arguments)

        return wrapped

    while True:
        folder, calls = tmp_path / str(failing_at), 0
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", failing(os.replace))
            patched.setattr(os, "fsync", failing(os.fsync))
            try:
                embed_stamps(folder, images)
            except OSError as error:
                assert error.errno in PASSING_ERRORS
                assert str(error).count(str(folder)) == 1
                assert ".partial" not in str(error)
            else:
                break
        assert not list(folder.glob("*.partial"))
        if (folder / HEAD_FILE).exists() and read_head(folder).num_shards:
            stored = all_found(folder)
            assert all(stored[path] == all_found(whole)[path] for path in stored)
        embed_stamps(folder, images)
        assert contents(folder) == contents(whole)
        failing_at += 1
    assert failing_at > 20


def rows_and_digest(workdir):
    """The metrics but for the timings, how many events, and the last state."""
    rows = read_metrics(workdir / "metrics.jsonl")
    timings = ("train/images_per_second", "train/data_wait_fraction")
    rows = [{k: v for k, v in row.items() if k not in timings} for row in rows]
    events = sum(path.stat().st_size for path in workdir.glob("events.out.*"))
    return rows, events, describe_checkpoint(workdir).digest


@pytest.mark.slow
def test_errors_of_a_full_disk_for_a_while_cost_a_training_nothing(
    photos, tmp_path, monkeypatch, capsys
):
    """Where no file system can be mounted: every write fails from step 3 to step 7."""
    full, write, log = False, os.write, Recorder.log
    save = store.ocp.CheckpointManager.save

    def failing(original, *arguments, **options):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    def logging(recorder, step, metrics):
        nonlocal full
        if full and step == 7:
            # On a slow machine they may not have been tried yet.
            assert recorder.writer._rows.flush(60) is False
            assert recorder.run.checkpoints._store._newest.exception(60) is not None
        full = faulty and 3 <= step < 7
        log(recorder, step, metrics)

    monkeypatch.setattr(growing_file, "RETRY_S", 0.05)
    monkeypatch.setattr(growing_file.os, "write", partial(failing, write))
    monkeypatch.setattr(
        store.ocp.CheckpointManager,
        "save",
        lambda manager, *a, **options: failing(save, manager, *a, **options),
    )
    monkeypatch.setattr(Recorder, "log", logging)
    found = []
    for faulty in (False, True):
        config = fault_config(photos, num_workers=0, log_every_steps=1)
        config.log_sample_ids = True
        train.run(config, tmp_path / str(faulty))
        found.append(rows_and_digest(tmp_path / str(faulty)))
        ids = (tmp_path / str(faulty) / "sample_ids.jsonl").read_text()
        assert len(ids.splitlines()) == 10
    assert found[0] == found[1]
    said = capsys.readouterr().out
    assert "checkpoint of step 5 could not be stored" in said
    assert "checkpoint of step 5 is stored now" in said
    assert "metrics.jsonl: written again, whole" in said


@pytest.mark.slow
def test_a_disk_that_was_full_for_a_while_costs_a_training_nothing(
    tmp_path, monkeypatch
):
    """The real command with two reading processes, which logs at every step."""
    with mounted(tmp_path / "probe", size="1m"):
        pass  # else the test is skipped
    full_disk = importlib.import_module("measure.full_disk")
    shorter = {"num_epochs": 4, "eval_every_epochs": 4}
    monkeypatch.setattr(full_disk, "LENGTH", full_disk.LENGTH | shorter)
    photos, whole = tmp_path / "photos", tmp_path / "whole"
    full_disk.write_photos(photos / "train", 32)
    full_disk.write_photos(photos / "val", 6, seed=1)
    assert full_disk.start(ROOT, photos, whole, tmp_path / "log").wait() == 0
    found = full_disk.measure("tmpfs", ROOT, photos, whole, tries=1, seconds=2.0)
    assert found["exit code 0"] == found["bit-equal"] == 1
    assert found["rows_missing_at_most"] == found["events_missing_at_most"] == 0
    assert found["metrics as without the fault"] == 1 and "traceback" not in found
