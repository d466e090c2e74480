"""What a resumed run compares, says and refuses; its states are a few numbers."""

import dataclasses
import errno
import json
import os
import shutil

import jax
import numpy as np
import pytest
from helpers.beginnings import (
    DATA,
    RECORD,
    average_of,
    begin,
    make_state,
    save,
    start,
    value_of,
)
from helpers.checkpoints import flip

from multigrain_jax.checkpoint import load_checkpoint, storage
from multigrain_jax.checkpoint.loading import ocp
from multigrain_jax.errors import CheckpointUnreadableError, InputError
from multigrain_jax.train import resume
from multigrain_jax.train.versions import current_versions

# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def damage(workdir, step, item="model"):
    for path in (workdir / "checkpoints" / str(step) / item).rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip(path)


def test_a_resumed_state_is_the_saved_one(tmp_path, capsys):
    save(tmp_path, 1, 2)
    found = start(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found, make_state(2, step=10))
    assert f"resuming from {tmp_path / 'checkpoints' / '10'}" in capsys.readouterr().out
    found = start(tmp_path, step=5)
    jax.tree.map(np.testing.assert_array_equal, found, make_state(1, step=5))


def test_a_resumed_average_is_the_saved_one(tmp_path):
    save(tmp_path, 1, 2, average=7.0)
    found = start(tmp_path, fresh=make_state(-1.0, average=-1.0))
    expected = make_state(2, step=10, average=7.0)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_an_average_may_begin_or_end_where_a_run_is_resumed(tmp_path, capsys):
    record = {**RECORD, "ema_decay": 0.9}
    averaged = make_state(-1.0, average=-1.0)
    save(tmp_path / "without", 1)
    found = start(tmp_path / "without", fresh=averaged, record=record)
    assert average_of(found) == value_of(found) == 1
    said = capsys.readouterr().out
    assert "config changed: ema_decay: None -> 0.9" in said
    assert "ema_decay is on now: the running average begins here" in said
    save(tmp_path / "with", 1, average=7.0, record=record)
    assert start(tmp_path / "with").ema is None
    said = capsys.readouterr().out
    assert "config changed: ema_decay: 0.9 -> None" in said
    assert "ema_decay is off now: the running average ends here" in said


@pytest.mark.parametrize("average", [None, 7.0])
def test_a_finished_run_has_the_average_that_it_was_trained_with(tmp_path, average):
    save(tmp_path, 1, average=average)
    fresh = make_state(-1.0, average=None if average else -1.0)
    found = start(tmp_path, fresh=fresh, last_step=5)
    assert (found.ema is None) == (average is None)


def test_a_damaged_average_is_damage(tmp_path, capsys):
    save(tmp_path, 1, 2, average=7.0)
    damage(tmp_path, 10, "ema")
    found = start(tmp_path, fresh=make_state(-1.0, average=-1.0))
    assert (int(found.step), average_of(found)) == (5, 7)
    assert "falling back to step 5" in capsys.readouterr().out


def test_another_config_or_other_images_are_told_or_refused(tmp_path, capsys):
    save(tmp_path, 1, num_images=8)
    changed = {**RECORD, "learning_rate": 0.2}
    with pytest.raises(InputError, match="9 images found, the run was started with 8"):
        start(tmp_path, record=changed)
    assert "config changed: learning_rate: 0.1 -> 0.2" in capsys.readouterr().out
    with pytest.raises(InputError, match="seed: 0 -> 1"):
        start(tmp_path, record={**RECORD, "seed": 1})
    record = {**RECORD, "seed": 1}
    assert value_of(start(tmp_path, record=record, allow_config_change=True)) == 1
    said = capsys.readouterr().out
    assert "config changed: seed: 0 -> 1" in said and "order would change" in said


@pytest.mark.parametrize("allowed", [True, False])
def test_arrays_that_do_not_fit_are_told_by_their_key(tmp_path, allowed):
    record = {**RECORD, "optimizer": "sgd"}
    save(tmp_path, 1, data=DATA, record=record)
    # Of LARS the optimiser's arrays are others, too.
    fresh = make_state(-1.0)
    fresh = dataclasses.replace(fresh, opt_state=(fresh.opt_state, fresh.step))
    options = {"fresh": fresh, "allow_config_change": allowed}
    with pytest.raises(InputError, match="optimizer: 'sgd' -> 'lars'") as error:
        start(tmp_path, record={**record, "optimizer": "lars"}, **options)
    assert "missing" not in str(error.value)
    options["fresh"] = make_state(-1.0, num_classes=3)
    three = DATA._replace(class_names=["a", "b", "c"])
    message = (
        r"^num_classes: .*5 has a classifier of 2 classes, and this run has 3; .*"
        rf"pretrained_backbone={tmp_path}$"
    )
    with pytest.raises(InputError, match=message):
        start(tmp_path, record=record, data=three, **options)


@pytest.mark.parametrize("dry_run", [True, False])
def test_damaged_checkpoints_are_passed_over_and_set_aside(tmp_path, capsys, dry_run):
    save(tmp_path, 1, 2)
    damage(tmp_path, 10, "optimizer")
    found = start(tmp_path, dry_run=dry_run)
    assert (int(found.step), value_of(found)) == (5, 1)
    assert "falling back to step 5" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"5", "10" if dry_run else "10.damaged"}


@pytest.mark.parametrize(
    "item", ["JsonCheckpointHandler", "BasePyTreeCheckpointHandler"]
)
@pytest.mark.parametrize(
    "name",
    ["EIO", "ESTALE", "ETIMEDOUT", "ENOLINK", "EHOSTDOWN", "ECONNRESET", "EACCES"],
)
def test_what_cannot_be_read_is_not_damaged(tmp_path, monkeypatch, name, item):
    """Neither set aside nor passed over: the run ends, and goes on another time."""
    save(tmp_path, 1, 2)
    monkeypatch.setattr(storage, "RETRY_S", 0.01)
    monkeypatch.setattr(storage, "PAUSE_S", 0.001)
    code = getattr(errno, name)
    real, away = getattr(ocp, item).restore, [True]

    def restore(self, folder, **options):
        if away[0] and "/10/" in str(folder):
            raise OSError(code, os.strerror(code))
        return real(self, folder, **options)

    monkeypatch.setattr(getattr(ocp, item), "restore", restore)
    with pytest.raises(CheckpointUnreadableError, match=f"10 was .* found {name} "):
        start(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"5", "10"}
    away[0] = False
    assert value_of(start(tmp_path)) == 2


def test_where_all_are_damaged_nothing_is_started_anew(tmp_path):
    save(tmp_path, 1, 2)
    damage(tmp_path, 5)
    damage(tmp_path, 10)
    with pytest.raises(InputError, match="resume_step = 10 cannot be resumed from"):
        start(tmp_path, step=10)
    with pytest.raises(InputError, match=r"damaged \(steps \[10, 5\]\)"):
        start(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"5", "10"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": DATA.digest | {"sizes": "x"}}, "but with other sizes; restore"),
        ({"digest": {**DATA.digest, "names": "", "labels": ""}}, "other names, labels"),
        ({"class_names": ["a", "c"]}, "classes are … 'c', the run was .* with … 'b'"),
        ({"class_names": ["x", "b"]}, "classes are 'x', 'b', the run .* with 'a', 'b'"),
    ],
)
def test_as_many_images_of_another_kind_are_refused(tmp_path, capsys, changes, message):
    save(tmp_path, 1, data=DATA)
    assert value_of(start(tmp_path)) == 1
    capsys.readouterr()
    other = DATA._replace(**changes)
    with pytest.raises(InputError, match=message):
        start(tmp_path, data=other)
    assert value_of(start(tmp_path, data=other, allow_config_change=True)) == 1
    assert "data: " in capsys.readouterr().out


OTHER = {
    "position": (24, "says step 5, .* is that of step 6"),
    "num_images": (8, "9 images found, the run was started with 8"),
    "digest": ({**DATA.digest, "sizes": "x"}, "with other sizes"),
    "versions": ({**current_versions(), "order": 0}, "order: 0 -> 1"),
}


@pytest.mark.parametrize("key", OTHER)
def test_all_that_a_checkpoint_says_of_its_data_is_compared(tmp_path, monkeypatch, key):
    record = {**RECORD, "batch_size": 4}
    save(tmp_path, 1, data=DATA, record=record)
    checkpoint = load_checkpoint(tmp_path)
    assert set(checkpoint.data) == set(OTHER)
    value, message = OTHER[key]
    other = dataclasses.replace(checkpoint, data={**checkpoint.data, key: value})
    monkeypatch.setattr(resume, "load_checkpoint", lambda *_, **__: other)
    with pytest.raises(InputError, match=message):
        start(tmp_path, record=record)


def test_an_older_checkpoint_knows_no_digest(tmp_path, capsys):
    save(tmp_path, 1)
    assert value_of(start(tmp_path)) == 1
    assert "data:" not in capsys.readouterr().out


def test_what_is_finished_stays_what_it_is(tmp_path, capsys):
    save(tmp_path, 1, 2)
    record = {**RECORD, "learning_rate": 0.2, "num_epochs": 7, "test_size": 48}
    (tmp_path / "before").mkdir()
    started = begin(tmp_path, record=record, last_step=10)
    assert value_of(started.state) == 2
    # The record of what was trained; what is measured may change.
    assert started.record == {**RECORD, "num_epochs": None, "test_size": 48}
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"nothing left to train: {tmp_path}/checkpoints/10 is of step 10, and the run "
        "ends at 10",
        "config changed, without effect: learning_rate: 0.1 -> 0.2",
        "config changed, without effect: num_epochs: None -> 7",
    ]
    # A longer run goes on, and the changes count.
    assert begin(tmp_path, record=record, last_step=11).record == record
    assert "config changed: learning_rate: 0.1 -> 0.2" in capsys.readouterr().out


def test_what_was_used_up_at_the_beginning_cannot_be_changed(tmp_path):
    save(tmp_path, 1)
    record = {**RECORD, "pooling_exponent": 4.0}
    with pytest.raises(
        InputError, match=r"no effect.*\n  pooling_exponent: .* -> 4\.0"
    ):
        start(tmp_path, record=record, allow_config_change=True)
    # What is not read now was nothing.
    assert value_of(start(tmp_path, record=record, idle_keys=["pooling_exponent"])) == 1


def test_the_step_in_a_name_is_that_of_the_checkpoint(tmp_path):
    folder = save(tmp_path, 1, 2) / "checkpoints"
    (folder / "10").rename(folder / "15")
    for path, step in ((tmp_path, None), (folder / "15", None), (tmp_path, 15)):
        with pytest.raises(InputError, match=r"says step 15, .* is of step 10; give"):
            load_checkpoint(path, step=step)
    with pytest.raises(InputError, match="the name says step 15"):
        start(tmp_path)
    # A copy under a name of words knows its step all the same.
    shutil.copytree(folder / "5", tmp_path / "best")
    assert load_checkpoint(tmp_path / "best").step == 5
    # What is no number is no step.
    for name in ("²", "007", "-1"):
        (folder / name).mkdir()
    assert load_checkpoint(tmp_path, step=5).step == 5


def test_the_place_in_the_data_is_that_of_the_step(tmp_path):
    record = {**RECORD, "batch_size": 2, "gradient_accumulation_steps": 2}
    save(tmp_path / "right", 1, record=record)
    assert int(start(tmp_path / "right", record=record).step) == 5
    wrong = {**record, "gradient_accumulation_steps": 4}
    save(tmp_path / "wrong", 1, record=wrong)
    with pytest.raises(InputError, match=r"says step 5, .* is that of step 2\.5"):
        start(tmp_path / "wrong", record=wrong)


def write_rows(workdir, last):
    rows = ({"step": step} for step in range(last + 1))
    (workdir / "metrics.jsonl").write_text(
        "".join(map("{}\n".format, map(json.dumps, rows)))
    )


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew_in_silence(tmp_path):
    fresh = make_state(-1.0)
    write_rows(tmp_path, 0)
    assert start(tmp_path, fresh=fresh) is fresh  # the validation before training
    write_rows(tmp_path, 3)
    with pytest.raises(
        InputError, match="trained to step 3, and its checkpoints are g"
    ):
        start(tmp_path)
    assert start(tmp_path, fresh=fresh, start_anew=True) is fresh
    # One that was killed before its first checkpoint was whole has an empty folder.
    (tmp_path / "checkpoints").mkdir()
    write_rows(tmp_path, 10)
    assert start(tmp_path, fresh=fresh) is fresh
    write_rows(tmp_path, 11)  # a checkpoint is due at 5, and was waited for at 10
    with pytest.raises(InputError, match=r"--config\.start_anew=True"):
        start(tmp_path)


def test_where_there_are_checkpoints_nothing_is_begun_anew(tmp_path, capsys):
    save(tmp_path, 1)
    assert value_of(start(tmp_path, start_anew=True)) == 1
    assert "start_anew is without effect" in capsys.readouterr().out
