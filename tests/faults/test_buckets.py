"""Training in a bucket: killed, continued elsewhere, alone, through what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from helpers.configs import fault_config
from helpers.hosts import (
    assert_close,
    hosts_config,
    train_on_one,
    train_on_two,
    use_devices,
)

from multigrain_jax import bucket_lock, buckets, mirror
from multigrain_jax.buckets import retry
from multigrain_jax.checkpoint import describe_checkpoint, load_checkpoint
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.tasks import train
from multigrain_jax.tasks.on_bucket import run_on_bucket

DRIVER = Path(__file__).parent / "bucket_driver.py"
EPOCHS = 6  # of five steps
TIMINGS = ("train/images_per_second", "train/data_wait_fraction")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Waits as they are, divided by a hundred."""
    monkeypatch.setattr(mirror, "PASS_S", 0.05)
    monkeypatch.setattr(mirror, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(bucket_lock, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(bucket_lock, "STALE_S", 60.0)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.1)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The workdir of a run that was never interrupted, in a folder."""
    workdir = tmp_path_factory.mktemp("whole")
    train.run(fault_config(photos, log_sample_ids=True, num_epochs=EPOCHS), workdir)
    return workdir


def downloaded(url: str, folder: Path) -> Path:
    for found in buckets.list_objects(url):
        buckets.download(found.path, folder / found.path.removeprefix(f"{url}/"))
    return folder


def rows_of(workdir: Path) -> list[dict]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def assert_equal_runs(workdir: Path, whole: Path) -> None:
    assert describe_checkpoint(workdir).digest == describe_checkpoint(whole).digest
    samples = [(path / "sample_ids.jsonl").read_text() for path in (workdir, whole)]
    assert samples[0] == samples[1]
    assert rows_of(workdir) == rows_of(whole)


def files_of(workdir: Path) -> set[str]:
    """The names of all files but those that Orbax and TensorBoard make up."""
    names = (path.relative_to(workdir).as_posix() for path in workdir.rglob("*"))
    made_up = ("/d/", "tfevents")
    return {
        name
        for name in names
        if (workdir / name).is_file() and not any(part in name for part in made_up)
    }


@pytest.mark.slow
def test_a_signal_in_a_storm_loses_nothing(
    gcs, photos, whole, tmp_path, monkeypatch, capsys
):
    """The bucket is away while ten steps are done, and a checkpoint is saved."""
    monkeypatch.setattr(retry, "PATIENCE_S", 0.1)
    real, steps = train.make_step, []

    def make_step(config, built):
        step = real(config, built)

        def counted(*arguments):
            steps.append(0)
            if len(steps) == 8:
                gcs.faults.order("dropped", every=1)
            if len(steps) == 18:
                gcs.faults.order("cut", every=9)
            if len(steps) == 22:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*arguments)

        return counted

    url = gcs.url("runs/a")
    monkeypatch.setattr(train, "make_step", make_step)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "first"))
    config = fault_config(photos, log_sample_ids=True, num_epochs=EPOCHS)
    with pytest.raises(StoppedEarly, match="after step 22 of 30"):
        run_on_bucket(train.run, config, url)
    monkeypatch.setattr(retry, "PATIENCE_S", 60.0)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "second"))
    run_on_bucket(train.run, config, url)
    gcs.faults.clear()
    assert "cannot be written" in capsys.readouterr().out
    assert_equal_runs(downloaded(url, tmp_path / "downloaded"), whole)
    for path in (tmp_path / "downloaded").rglob("*"):
        # What is kept names no folder of this machine, but where Orbax tells its own.
        if path.is_file() and path.name != "commit_success.txt":
            assert b"/workdirs/" not in path.read_bytes()


@pytest.mark.long  # two minutes; its parts are test_hosts' and test_working_copy's
def test_two_hosts_share_a_workdir_in_a_bucket(gcs, photos, tmp_path, monkeypatch):
    """Each with a working copy of its own; process 0 writes, and both resume."""
    url, one = gcs.url("runs/a"), tmp_path / "one"
    use_devices(monkeypatch, 4)
    with jax.enable_x64(True):
        train_on_one(photos, one, epochs=1)
        config = hosts_config(photos, num_epochs=1, stop_at_step=2)
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "first"))
        with pytest.raises(StoppedEarly):
            run_on_bucket(train.run, config, url)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "second"))
    said = train_on_two(photos, url, epochs=1, cache=tmp_path / "compiled")
    assert "resuming from" in said[0]
    many = downloaded(url, tmp_path / "downloaded")
    assert (many / "hosts/1/sample_ids.jsonl").is_file()
    samples = [(path / "sample_ids.jsonl").read_text() for path in (one, many)]
    assert samples[0] == samples[1]
    whole, resumed = load_checkpoint(one), load_checkpoint(many)
    assert (whole.step, resumed.step) == (5, 5)
    assert_close(whole.model, resumed.model)
    copies = list((tmp_path / "second" / "workdirs").glob("*/state.json"))
    assert len(copies) == 2


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["gcs", "s3"])
def test_a_run_that_is_killed_goes_on_on_another_machine(
    storage, request, photos, whole, tmp_path, monkeypatch, capsys
):
    bucket = request.getfixturevalue(storage)
    url = bucket.url("runs/a")
    first = {**os.environ, "MULTIGRAIN_CACHE": str(tmp_path / "first")}
    command = [sys.executable, str(DRIVER), str(photos), url, str(EPOCHS)]
    with subprocess.Popen(command, env=first) as child:
        while not bucket.names("runs/a/checkpoints/10/meta/metadata"):
            assert child.poll() is None
            time.sleep(0.02)
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "second"))
        config = fault_config(photos, log_sample_ids=True, num_epochs=EPOCHS)
        with pytest.raises(
            InputError, match=rf"{url} is in use by process {child.pid}"
        ):
            run_on_bucket(train.run, config, url)
        child.kill()
    monkeypatch.setattr(bucket_lock, "STALE_S", 1.0)
    capsys.readouterr()
    if storage == "gcs":
        bucket.faults.order("busy", every=7)
    run_on_bucket(train.run, config, url)
    if storage == "gcs":
        bucket.faults.clear()
    told = capsys.readouterr().out
    assert f"taken over from process {child.pid}" in told
    assert "resuming from" in told
    workdir = downloaded(url, tmp_path / "downloaded")
    assert_equal_runs(workdir, whole)
    assert files_of(workdir) == files_of(whole) - {".lock"}
    assert list(workdir.glob("events.out.tfevents*"))
