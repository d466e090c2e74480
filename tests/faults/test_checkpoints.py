"""Saves that fail, and checkpoints that are damaged after they were written."""

import errno
import os
import shutil

import pytest
from helpers.checkpoints import flip
from helpers.configs import fault_config

from multigrain_jax.checkpoint import (
    CheckpointNotSavedError,
    describe_checkpoint,
    load_checkpoint,
)
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.tasks.train import run

# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def two_checkpoints(photos, tmp_path_factory):
    """The workdir of a run of ten steps, saved after five and ten."""
    workdir = tmp_path_factory.mktemp("two")
    run(fault_config(photos), workdir)
    return workdir


def damage_step(workdir, step, item="model"):
    folder = workdir / "checkpoints" / str(step) / item
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            flip(path)


@pytest.mark.parametrize("item", ["model", "optimizer", "meta"])
def test_a_damaged_newest_checkpoint_falls_back(
    photos, two_checkpoints, tmp_path, capsys, item
):
    workdir = tmp_path / "run"
    shutil.copytree(two_checkpoints, workdir)
    whole = describe_checkpoint(workdir)
    damage_step(workdir, 10, item)
    run(fault_config(photos), workdir)
    said = capsys.readouterr().out
    assert "falling back to step 5" in said and "10.damaged" in said
    assert f"{item}: " in said
    assert describe_checkpoint(workdir).digest == whole.digest
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert names == {"5", "10", "10.damaged"}


def test_nothing_is_started_anew_over_damaged_checkpoints(
    photos, two_checkpoints, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(two_checkpoints, workdir)
    damage_step(workdir, 5)
    damage_step(workdir, 10)
    for _ in range(2):
        with pytest.raises(InputError, match=r"every checkpoint is damaged.*\[10, 5\]"):
            run(fault_config(photos), workdir)
    assert (workdir / "checkpoints" / "5").is_dir()


def test_a_run_goes_on_after_a_lost_save(photos, tmp_path, monkeypatch):
    from multigrain_jax.checkpoint import store

    real, calls = store.ocp.CheckpointManager.save, []

    def save(self, step, **arguments):
        calls.append(step)
        if calls[-1] == 5:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, step, **arguments)

    monkeypatch.setattr(store.ocp.CheckpointManager, "save", save)
    run(fault_config(photos), tmp_path)
    # Twice at once, and again at the logs until the next one takes its place.
    assert calls[:3] == [5, 5, 5]
    assert calls[-1] == 10 and set(calls[:-1]) == {5}
    assert load_checkpoint(tmp_path).step == 10


def test_a_run_whose_last_state_is_lost_fails(photos, tmp_path, monkeypatch):
    from multigrain_jax.checkpoint import store

    def save(self, step, **arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.ocp.CheckpointManager, "save", save)
    monkeypatch.setattr(store, "LAST_PATIENCE_S", 0)
    with pytest.raises(CheckpointNotSavedError, match="step 1 could not be stored"):
        run(fault_config(photos, stop_at_step=1), tmp_path)


def test_a_dry_run_deletes_nothing(photos, two_checkpoints, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two_checkpoints, workdir)
    run(fault_config(photos, dry_run=True, resume_step=5), workdir)
    assert (workdir / "checkpoints" / "10").is_dir()
    with pytest.raises(StoppedEarly):
        run(fault_config(photos, resume_step=5, stop_at_step=6), workdir)
    assert not (workdir / "checkpoints" / "10").exists()
