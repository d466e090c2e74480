"""What is written beside the updates: to a fake writer, of a run without a model."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.train.loop import NonFiniteLossError
from multigrain_jax.train.recorder import MUCH_WAITING, Recorder
from multigrain_jax.train.state import TrainState

STATE = TrainState(
    step=jnp.int32(4),
    params={"margin": {"beta": jnp.float32(1.2)}},
    batch_stats={},
    pooling_exponent=jnp.float32(3.0),
    opt_state=(),
)


class Writer:
    def __init__(self):
        self.rows, self.notes = [], []

    def write(self, step, metrics):
        self.rows.append((step, metrics))

    def note(self, line):
        self.notes.append(line)


class Checkpoints:
    def __init__(self):
        self.saved = []

    def try_again(self):
        """None has failed."""

    def save(self, state, step):
        self.saved.append((state, step))

    def newest(self):
        return "checkpoints/3"


class Named:
    def describe(self, index):
        return f"{index}.jpg"


def make_recorder(workdir, *, scores=None, writes=True, lock=None):
    """Of a run of eight images in batches of four: two steps an epoch."""
    stream = RepeatedStream(
        num_images=8, num_repeats=1, epoch_len_factor=1.0, batch_size=4, seed=0
    )
    run = SimpleNamespace(
        stream=stream,
        source=Named(),
        learning_rate=lambda step: 0.5 / (step + 1),
        checkpoints=Checkpoints() if writes else None,
    )
    return Recorder(
        run,
        workdir,
        Writer(),
        validate_state=lambda state: scores,
        num_workers=3,
        lock=lock,
    )


def test_a_row_has_the_epoch_and_the_rate_of_its_update(tmp_path):
    recorder = make_recorder(tmp_path)
    recorder.log(3, {"loss": 2.0, "data_wait_fraction": 0.0})
    assert recorder.writer.rows == [
        (
            3,
            {
                "epoch": 1.5,
                "train/loss": 2.0,
                "train/data_wait_fraction": 0.0,
                # The third update was made at the rate of step 2.
                "learning_rate": 0.5 / 3,
            },
        )
    ]


def test_the_first_step_and_much_waiting_are_said_once(tmp_path):
    recorder = make_recorder(tmp_path)
    much, little = ({"data_wait_fraction": MUCH_WAITING + d} for d in (0.1, -0.01))
    recorder.first_step()
    recorder.log(1, much)  # waits for the first batch, which is no fault
    recorder.log(2, little)
    (first,) = recorder.writer.notes
    assert first.startswith("first step after ")
    recorder.log(3, much)
    recorder.log(4, much)
    _, line = recorder.writer.notes
    assert line.startswith("20% of the time goes on waiting for data")
    assert "raise num_workers (now 3;" in line


def test_scores_of_a_validation_are_written_and_remembered(tmp_path):
    recorder = make_recorder(tmp_path, scores={"top1": 0.25})
    recorder.validate(STATE, 4)
    assert recorder.writer.rows == [(4, {"epoch": 2.0, "val/top1": 0.25})]
    assert recorder.results == {"val/top1": 0.25}


@pytest.mark.parametrize(("scores", "notes"), [(None, 1), ({}, 0)])
def test_without_scores_there_is_no_row(tmp_path, scores, notes):
    recorder = make_recorder(tmp_path, scores=scores)
    recorder.results = {"val/top1": 0.5}  # of the validation before
    recorder.validate(STATE, 4)
    assert recorder.writer.rows == []
    assert recorder.results == {"val/top1": 0.5}
    assert len(recorder.writer.notes) == notes
    assert all("broken off" in line for line in recorder.writer.notes)


def test_a_state_is_saved_unless_it_is_broken(tmp_path):
    recorder = make_recorder(tmp_path)
    recorder.save(STATE, 4)
    assert recorder.run.checkpoints.saved == [(STATE, 4)]
    broken = replace(STATE, params={"margin": {"beta": jnp.float32(jnp.inf)}})
    with pytest.raises(NonFiniteLossError, match="infinite after step 5") as error:
        recorder.save(broken, 5)
    assert error.value.step == 5
    assert len(recorder.run.checkpoints.saved) == 1


def test_a_host_that_writes_nothing_checks_all_the_same(tmp_path):
    recorder = make_recorder(tmp_path, writes=False)
    recorder.save(STATE, 4)
    broken = replace(STATE, pooling_exponent=jnp.float32(jnp.nan))
    with pytest.raises(NonFiniteLossError):
        recorder.save(broken, 4)


@pytest.mark.parametrize("writes", [True, False])
def test_an_error_is_explained_by_its_batch_and_the_last_good_state(tmp_path, writes):
    recorder = make_recorder(tmp_path, writes=writes)
    error = recorder.explained(NonFiniteLossError("the loss is nan", step=3))
    assert error.step == 3
    first, *lines = str(error).split("\n  ")
    assert first == "the loss is nan"
    assert "lower the learning rate" in lines[-1]
    path = tmp_path / "non_finite_batch.json"
    assert path.exists() == writes
    if writes:
        assert lines[:2] == [
            "last good checkpoint: checkpoints/3",
            f"images of step 3: {path}",
        ]
        # Update 3 is made from batch 2, counted from 0.
        ids = json.loads(path.read_text())["sample_ids"]
        np.testing.assert_array_equal(ids, recorder.run.stream.sample_ids(2))
