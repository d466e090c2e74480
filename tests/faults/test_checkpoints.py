"""Saves that fail, and checkpoints that are damaged after they were written."""

import errno
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest
from helpers.configs import fault_config

from multigrain_jax.checkpoint import (
    CheckpointNotSavedError,
    CheckpointStore,
    DamagedCheckpointError,
    describe_checkpoint,
    load_checkpoint,
    load_optimizer_arrays,
)
from multigrain_jax.checkpoint.loading import reason_in_short
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.tasks.train import run

# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def example(step):
    rng = np.random.default_rng(step)
    model = {"params": {"kernel": rng.random((64, 64)), "bias": rng.random(7)}}
    return {"model": model, "optimizer": {"trace": rng.random((64, 64))}}


def fail_saves(monkeypatch, store, failing):
    """The saves of these numbers, counted from 1, meet a full disk."""
    real, calls = store._manager.save, []

    def save(step, **arguments):
        calls.append(step)
        if len(calls) in failing:
            (store.folder / f"{step}.orbax-checkpoint-tmp").mkdir()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(step, **arguments)

    monkeypatch.setattr(store._manager, "save", save)
    return calls


def test_a_failed_save_is_tried_again(tmp_path, monkeypatch, capsys):
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, store, {1})
    store.save(5, **example(5), meta={})
    store.close()
    assert calls == [5, 5]
    assert "step 5 could not be stored" in (said := capsys.readouterr().out)
    assert "No space left on device" in said and "trying once more" in said
    np.testing.assert_array_equal(
        load_checkpoint(tmp_path).model["params"]["kernel"],
        example(5)["model"]["params"]["kernel"],
    )
    assert [path.name for path in store.folder.iterdir()] == ["5"]


def test_a_lost_save_skips_no_later_one(tmp_path, monkeypatch, capsys):
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, store, {2, 3})
    for step in (5, 10, 15):
        store.save(step, **example(step), meta={})
    store.close()
    assert calls == [5, 10, 10, 15]
    assert store.steps() == [5, 15]
    assert "given up" in capsys.readouterr().out


def test_the_newest_state_that_is_lost_is_an_error(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    fail_saves(monkeypatch, store, {2, 3})
    store.save(5, **example(5), meta={})
    store.wait()
    store.save(10, **example(10), meta={})
    with pytest.raises(CheckpointNotSavedError, match=r"step 10.*No space left"):
        store.close()
    assert store.steps() == [5]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# TensorStore's threads print the error too, which is not what is looked at here.
def test_a_full_disk_is_reported_and_survived(small_disk, capsys):
    store = CheckpointStore(small_disk)
    store.save(5, **example(5), meta={})
    filler = small_disk / "filler"
    store.wait()
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(free - 16_384))
    store.save(10, **example(10), meta={})
    with pytest.raises(CheckpointNotSavedError, match="step 10"):
        store.wait()
    assert "given up" in capsys.readouterr().out
    assert store.steps() == [5]
    filler.unlink()
    store.save(15, **example(15), meta={})
    store.close()
    assert store.steps() == [5, 15]
    assert load_checkpoint(small_disk).step == 15


def test_what_unfinished_saves_leave_is_removed(tmp_path):
    left = tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp-123" / "model"
    left.mkdir(parents=True)
    with pytest.raises(InputError, match="found none"):
        load_checkpoint(tmp_path)
    store = CheckpointStore(tmp_path)
    store.save(10, **example(10), meta={})
    store.close()
    assert [path.name for path in store.folder.iterdir()] == ["10"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def assert_says_what_is_damaged(message, name):
    """The message names the file or its array, in a line, and the remedy."""
    first, *problems = message.splitlines()
    assert "use another step or a copy" in first
    for problem in problems:
        assert problem.startswith(f"  {name.parts[0]}: ") and len(problem) < 350
        assert name.name in problem or "params." in problem or "trace" in problem


@pytest.mark.parametrize("damage", [flip, truncate, os.remove])
def test_a_damaged_file_is_noticed_or_harmless(tmp_path, damage):
    store = CheckpointStore(tmp_path / "whole")
    store.save(5, **example(5), meta={"backbone": "tiny"}, data={"position": 80})
    store.close()
    folder = store.folder / "5"
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    noticed = []
    for number, name in enumerate(files):
        if not (folder / name).stat().st_size and damage is not os.remove:
            continue
        copy = tmp_path / str(number) / "checkpoints" / "5"
        shutil.copytree(folder, copy)
        damage(copy / name)
        try:
            loaded = load_checkpoint(copy)
            optimizer = load_optimizer_arrays(loaded)
        except DamagedCheckpointError as error:
            noticed.append(str(name))
            assert_says_what_is_damaged(str(error), name)
            continue
        expected = example(5)
        jax.tree.map(np.testing.assert_array_equal, loaded.model, expected["model"])
        jax.tree.map(np.testing.assert_array_equal, optimizer, expected["optimizer"])
        assert (loaded.meta, loaded.data) == ({"backbone": "tiny"}, {"position": 80})
    # Nodes of the store's trees that newer ones replace may be broken without harm.
    largest = max((folder / "model").rglob("*"), key=lambda path: path.stat().st_size)
    kernel = str(largest.relative_to(folder))
    assert {"meta/metadata", "data/metadata", kernel} <= set(noticed)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b'"value_metadata"', b'"value_mEtadata"', "KeyError: 'value_metadata'"),
        (b'"tree_metadata"', b'"tree\xffmetadata"', "UnicodeDecodeError"),
        (b"{", b"[", "JSONDecodeError"),
    ],
)
def test_damage_to_the_structure_names_its_file(tmp_path, before, after, reason):
    store = CheckpointStore(tmp_path)
    store.save(5, **example(5), meta={})
    store.close()
    file = store.folder / "5" / "model" / "_METADATA"
    content = file.read_bytes()
    assert before in content
    file.write_bytes(content.replace(before, after))
    with pytest.raises(DamagedCheckpointError, match=f"  model: _METADATA: {reason}"):
        load_checkpoint(tmp_path)


def test_a_long_reason_is_cut_after_the_place(tmp_path):
    place = f'DATA_LOSS: Error reading local file "{tmp_path}/model/d/1bd77e"'
    settings = "[tensorstore_spec='{}']"
    error = ValueError(f"{place}: {'; at byte 233' * 50} {settings}")
    reason = reason_in_short(error, tmp_path)
    assert reason.startswith('DATA_LOSS: Error reading local file "model/d/1bd77e": ')
    assert reason.endswith("…") and len(reason) == 300
    short = reason_in_short(ValueError(f"{place} {settings}"), tmp_path)
    assert short == 'DATA_LOSS: Error reading local file "model/d/1bd77e"'


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
    assert calls == [5, 5, 10]
    assert load_checkpoint(tmp_path).step == 10


def test_a_run_whose_last_state_is_lost_fails(photos, tmp_path, monkeypatch):
    from multigrain_jax.checkpoint import store

    def save(self, step, **arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.ocp.CheckpointManager, "save", save)
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
