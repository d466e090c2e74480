"""Saves: which are kept, and what becomes of those that fail."""

import errno
import os
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.checkpoints import save_small, small_items
from helpers.commands import mounted

from multigrain_jax.checkpoint import (
    CheckpointNotSavedError,
    CheckpointStore,
    load_checkpoint,
    require_no_checkpoints,
    save_derived,
)
from multigrain_jax.checkpoint import store as store_module
from multigrain_jax.errors import InputError


def test_saving_a_step_twice_is_refused(tmp_path):
    save_small(tmp_path)
    with pytest.raises(InputError, match=r"step 5 was not written: .* has one"):
        save_small(tmp_path)


def test_last_and_every_tenth_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep_every_steps=10)
    for step in (5, 10, 15, 20, 25):
        store.save(step, model={"a": np.zeros(3)}, meta={})
    store.close()
    assert store.steps() == [10, 20, 25]
    assert store.delete_after(10) == [20, 25]
    assert store.steps() == [10]


def fail_saves(monkeypatch, failing):
    """The saves of these numbers, counted from 1, meet a full disk."""
    real, calls = ocp.CheckpointManager.save, []

    def save(self, step, **arguments):
        calls.append(step)
        if len(calls) in failing:
            (self.directory / f"{step}.orbax-checkpoint-tmp").mkdir()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    return calls


def test_a_failed_save_is_tried_again(tmp_path, monkeypatch, capsys):
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, {1})
    store.save(5, **small_items(5), meta={})
    store.close()
    assert calls == [5, 5]
    assert "step 5 could not be stored" in (said := capsys.readouterr().out)
    assert "No space left on device" in said and "trying once more" in said
    np.testing.assert_array_equal(
        load_checkpoint(tmp_path).model["params"]["kernel"],
        small_items(5)["model"]["params"]["kernel"],
    )
    assert [path.name for path in store.folder.iterdir()] == ["5"]


def test_a_lost_save_skips_no_later_one(tmp_path, monkeypatch, capsys):
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, {2, 3})
    for step in (5, 10, 15):
        store.save(step, **small_items(step), meta={})
    store.close()
    assert calls == [5, 10, 10, 15]
    assert store.steps() == [5, 15]
    assert "tried again at every log" in capsys.readouterr().out


def test_a_lost_save_is_tried_again_until_it_succeeds(tmp_path, monkeypatch, capsys):
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, {1, 2, 3, 4, 5})
    store.try_again()  # nothing was to be saved
    store.save(5, **small_items(5), meta={"kept": 1})
    for _ in range(2):
        with pytest.raises(CheckpointNotSavedError, match="KiB free"):
            store.wait()
        store.try_again()
    store.wait()
    store.try_again()  # it is there
    store.close()
    assert calls == [5] * 6
    found = load_checkpoint(tmp_path)
    assert (found.step, found.meta) == (5, {"kept": 1})
    np.testing.assert_array_equal(
        found.model["params"]["kernel"], small_items(5)["model"]["params"]["kernel"]
    )
    said = capsys.readouterr().out
    # Once for each of the first two attempts; the later ones are silent.
    assert said.count("WARNING") == 2
    assert "checkpoint of step 5 is stored now" in said


def test_the_newest_state_that_is_lost_is_an_error(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    fail_saves(monkeypatch, {2, 3})
    store.save(5, **small_items(5), meta={})
    store.wait()
    store.save(10, **small_items(10), meta={})
    wanted = r"step 10.*No space left.*goes on from the checkpoint of step 5"
    monkeypatch.setattr(store_module, "LAST_PATIENCE_S", 0)
    with pytest.raises(CheckpointNotSavedError, match=wanted):
        store.close()
    assert store.steps() == [5]


def test_the_last_state_is_tried_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "LAST_PAUSE_S", 0.01)
    store = CheckpointStore(tmp_path)
    calls = fail_saves(monkeypatch, set(range(1, 8)))
    store.save(5, **small_items(5), meta={})
    store.close()
    assert calls == [5] * 8
    assert store.steps() == [5]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    with mounted(tmp_path / "disk", size="2m") as folder:
        yield folder


# TensorStore's threads print the error too, which is not what is looked at here; writes
# that are still under way then complete to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_reported_and_survived(small_disk, capsys):
    store = CheckpointStore(small_disk)
    store.save(5, **small_items(5), meta={})
    filler = small_disk / "filler"
    store.wait()
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(free - 16_384))
    store.save(10, **small_items(10), meta={})
    with pytest.raises(CheckpointNotSavedError, match="step 10"):
        store.wait()
    assert "tried again" in capsys.readouterr().out
    assert store.steps() == [5]
    filler.unlink()
    store.save(15, **small_items(15), meta={})
    store.close()
    assert store.steps() == [5, 15]
    assert load_checkpoint(small_disk).step == 15


def test_what_unfinished_saves_leave_is_removed(tmp_path):
    left = tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp-123" / "model"
    left.mkdir(parents=True)
    with pytest.raises(InputError, match="found none"):
        load_checkpoint(tmp_path)
    store = CheckpointStore(tmp_path)
    store.save(10, **small_items(10), meta={})
    store.close()
    assert [path.name for path in store.folder.iterdir()] == ["10"]


def test_a_folder_with_a_result_is_refused(tmp_path):
    require_no_checkpoints(tmp_path)
    require_no_checkpoints(tmp_path / "new")
    folder = save_small(tmp_path)
    for used in (tmp_path, folder):  # a workdir, and a step's folder
        with pytest.raises(InputError, match="found checkpoints; choose another"):
            require_no_checkpoints(used)


def test_a_derived_checkpoint_names_its_source_and_has_no_optimizer(tmp_path):
    save_small(tmp_path / "first", step=7)
    source = load_checkpoint(tmp_path / "first")
    model = {"params": {"kernel": np.ones(3)}}
    save_derived(tmp_path / "second", source, model=model, record={"seed": 1})
    found = load_checkpoint(tmp_path / "second")
    assert found.step == 7
    assert found.meta == {
        "backbone": "tiny",
        "config": {"seed": 1},
        "made_from": str(source.path),
    }
    np.testing.assert_array_equal(found.model["params"]["kernel"], np.ones(3))
    assert found.digests.keys() == {"model"}


def test_the_longest_save_is_remembered(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.longest_save == 0
    store.save(5, **small_items(5), meta={})
    store.close()
    assert 0 < store.longest_save < 60
