"""The loop: what happens after which step, and in which order. The steps are fakes."""

import time
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from multigrain_jax.errors import ReadingGivenUp
from multigrain_jax.train.loop import NonFiniteLossError, Schedule, train_loop


@dataclass(frozen=True)
class State:
    """As much of a state as the loop looks at."""

    step: int


class Run:
    """A run of fake steps that notes what the loop asks for."""

    def __init__(self, *, losses=None, stop_after=()):
        self.events, self.logged, self.batches = [], {}, []
        self.losses = losses or {}
        self.firsts = []
        # What the host asks for when it asks to stop: the last events before it.
        self.stop_after = stop_after
        # The batch in place of which reading is given up.
        self.given_up_at = None

    def loop(self, first_step=0, **schedule):
        numbers = {"log_every": 100, "eval_every": 100, "save_every": 100}
        return train_loop(
            State(first_step),
            train_step=self.train_step,
            batches=self.read(first_step),
            images_per_step=6,
            schedule=Schedule(**(numbers | schedule)),
            on_first_step=lambda: self.firsts.append(self.events[-1]),
            on_log=self.log,
            on_eval=lambda state, step: self.note("eval", state, step),
            on_save=lambda state, step: self.note("save", state, step),
            should_stop=lambda: self.events[-1] in self.stop_after,
        )

    def read(self, first_step):
        for number in range(first_step, 1000):
            if number == self.given_up_at:
                raise ReadingGivenUp
            yield number

    def train_step(self, state, batch):
        assert batch == state.step  # the batch of each step, none left out
        step = state.step + 1
        self.events.append(f"step {step}")
        return State(step), {"loss": np.float32(self.losses.get(step, step))}

    def log(self, step, metrics):
        self.events.append(f"log {step}")
        self.logged[step] = metrics

    def note(self, what, state, step):
        assert state.step == step
        self.events.append(f"{what} {step}")

    def without_steps(self):
        return [event for event in self.events if not event.startswith("step")]


def test_everything_happens_when_the_schedule_says():
    run = Run()
    state, stopped = run.loop(last_step=10, log_every=4, eval_every=5, save_every=3)
    assert (state.step, stopped) == (10, False)
    assert run.without_steps() == [
        "log 1",
        *("log 3", "save 3"),
        "log 4",
        *("log 5", "eval 5"),
        *("log 6", "save 6"),
        "log 8",
        *("log 9", "save 9"),
        # Whatever the intervals: the end is logged, evaluated and saved.
        *("log 10", "eval 10", "save 10"),
    ]
    assert [event for event in run.events if event.startswith("step")] == [
        f"step {number}" for number in range(1, 11)
    ]


def test_a_resumed_run_keeps_to_the_same_steps():
    run = Run()
    run.loop(first_step=7, last_step=10, log_every=4, eval_every=5, save_every=3)
    assert run.without_steps() == [
        "log 8",  # its first, which is also one of the four
        *("log 9", "save 9"),
        *("log 10", "eval 10", "save 10"),
    ]
    assert run.firsts == ["log 8"]


@pytest.mark.parametrize("stop", [4, 8])
def test_a_resume_between_two_rows_adds_none_and_changes_no_mean(stop):
    whole, parts = Run(), Run()
    whole.loop(last_step=12, log_every=4)
    parts.loop(last_step=12, log_every=4, stop_at=stop)
    parts.loop(first_step=stop, last_step=12, log_every=4)
    assert [e for e in parts.events if "log" in e] == [
        "log 1",
        *(f"log {step}" for step in (4, 8, 12)),
    ]
    losses = [{s: row["loss"] for s, row in r.logged.items()} for r in (whole, parts)]
    assert losses[0] == losses[1] == {1: 1, 4: 3, 8: 6.5, 12: 10.5}
    assert parts.firsts == ["log 1", f"step {stop + 1}"]


def test_the_first_step_of_a_resumed_run_is_no_throughput():
    run = Run()
    step = run.train_step
    run.train_step = lambda *given: (
        time.sleep(0.6 if given[0].step == 4 else 0.02),
        step(*given),
    )[1]
    run.loop(first_step=4, last_step=8, log_every=4)
    # Three steps of six images in 0.06 s, and more on a busy machine. All four would
    # be 36 a second.
    assert 50 < run.logged[8]["images_per_second"] <= 300


def test_nothing_is_left_to_do_at_the_end():
    run = Run()
    state, stopped = run.loop(first_step=10, last_step=10)
    assert (state.step, stopped, run.events) == (10, False, [])


def test_a_run_that_is_asked_to_stop_logs_saves_and_leaves():
    run = Run(stop_after=("step 4", "save 4"))
    state, stopped = run.loop(last_step=10, eval_every=2)
    assert (state.step, stopped) == (4, True)
    # No validation is begun any more, though one was due.
    assert run.events[-3:] == ["step 4", "log 4", "save 4"]
    assert run.without_steps()[:3] == ["log 1", "log 2", "eval 2"]


def test_a_validation_may_ask_to_stop():
    run = Run(stop_after=("eval 5", "save 5"))
    _, stopped = run.loop(last_step=10, eval_every=5)
    assert stopped
    assert run.events[-4:] == ["step 5", "log 5", "eval 5", "save 5"]


def test_a_step_to_stop_at_is_as_if_asked():
    run = Run()
    state, stopped = run.loop(last_step=10, stop_at=3)
    assert (state.step, stopped) == (3, True)
    assert run.without_steps() == ["log 1", "log 3", "save 3"]


def test_the_last_step_is_the_end_and_no_interruption():
    run = Run()
    assert run.loop(last_step=3, stop_at=3) == (State(3), False)
    assert run.without_steps()[-2:] == ["log 3", "save 3"]
    # But one that is asked to stop after the last step has no time for what follows.
    run = Run(stop_after=("step 3", "save 3"))
    assert run.loop(last_step=3) == (State(3), True)


def run_timed(run, *, batch_s=0.0, step_s=0.0, eval_s=0.0, **schedule):
    """Fake steps that take so long; the rows that were logged."""

    def batches():
        while True:
            time.sleep(batch_s)
            yield run.batch

    def train_step(state, batch):
        time.sleep(step_s)
        run.batch += 1
        return run.train_step(state, batch)

    run.batch = 0
    train_loop(
        State(0),
        train_step=train_step,
        batches=batches(),
        images_per_step=6,
        schedule=Schedule(**({"eval_every": 100, "save_every": 100} | schedule)),
        on_first_step=lambda: None,
        on_log=run.log,
        on_eval=lambda state, step: time.sleep(eval_s),
        on_save=lambda state, step: None,
        should_stop=lambda: False,
    )
    return run.logged


def test_an_interval_has_its_means():
    run = Run(losses={1: 8.0, 2: 1.0, 3: 2.0, 4: 6.0})
    rows = run_timed(run, last_step=4, log_every=4)
    assert {step: row["loss"] for step, row in rows.items()} == {1: 8.0, 4: 3.0}


def test_the_share_of_waiting_and_the_rate_are_measured():
    # The machine may be busy with other things: of several intervals, the best.
    waiting = run_timed(Run(), batch_s=0.02, last_step=5, log_every=1).values()
    working = run_timed(Run(), step_s=0.02, last_step=5, log_every=1).values()
    assert max(row["data_wait_fraction"] for row in waiting) > 0.8
    assert min(row["data_wait_fraction"] for row in working) < 0.2
    for row in (*waiting, *working):
        assert 0 <= row["data_wait_fraction"] <= 1
        assert row["images_per_second"] < 6 / 0.02


def test_evaluating_is_not_counted_as_training():
    rows = run_timed(Run(), eval_s=0.1, last_step=6, log_every=1, eval_every=1)
    # With 0.1 seconds each, the rate would be at most 60.
    assert max(row["images_per_second"] for row in rows.values()) > 100


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_broken_loss_is_found_before_it_is_evaluated_or_saved(loss):
    run = Run(losses={3: loss, 4: loss})
    with pytest.raises(NonFiniteLossError, match=r"at step 3 \(steps 2 to 5 ") as error:
        run.loop(last_step=10, eval_every=5, save_every=5)
    assert error.value.step == 3
    assert run.without_steps() == ["log 1"]


def test_the_host_runs_two_steps_ahead_and_no_more(monkeypatch):
    waited = []
    monkeypatch.setattr(
        jax, "block_until_ready", lambda metrics: waited.append(int(metrics["loss"]))
    )
    run = Run()
    run.loop(last_step=6)
    # The first step is logged, which waits for it anyway.
    assert waited == [2, 3, 4]


@pytest.mark.parametrize(
    ("given_up_at", "expected"),
    [
        (3, []),  # nothing was done: there is nothing to save
        (6, ["log 6", "save 6"]),
        (5, ["save 5"]),
    ],
)
def test_a_run_whose_data_hangs_saves_what_it_has(given_up_at, expected):
    run = Run()
    run.given_up_at = given_up_at
    state, stopped = run.loop(3, last_step=10, log_every=5)
    assert (state.step, stopped) == (given_up_at, True)
    done = [event for event in run.without_steps() if event not in ("log 4", "log 5")]
    assert done == expected
