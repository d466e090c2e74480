"""The loop around the training step: feeds it, reports, evaluates, saves."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from multigrain_jax.errors import ReadingGivenUp
from multigrain_jax.train.state import TrainState

# The host may run this many steps ahead of the device: enough to hide its work, and
# few enough that the batches in flight stay small.
STEPS_IN_FLIGHT = 2


class NonFiniteLossError(FloatingPointError):
    """The loss or a parameter became NaN or infinite: the run cannot go on."""

    def __init__(self, message: str, *, step: int):
        """Remember the step, the first one that is known to be wrong."""
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class Schedule:
    """When the loop does what, in steps.

    Attributes:
        last_step: the run ends after this many updates.
        log_every: metrics are fetched and written; and before the two below, so that
            no broken state is evaluated or saved.
        eval_every: the validation runs.
        save_every: a checkpoint is written.
        stop_at: the run saves and leaves here (None: never).
    """

    last_step: int
    log_every: int
    eval_every: int
    save_every: int
    stop_at: int | None = None


@dataclass
class _Interval:
    """What has gathered since the metrics were last written."""

    metrics: list[Mapping[str, jax.Array]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    # Steps that were made before the clock was started.
    untimed: int = 0

    def restart_clock(self) -> None:
        """Leave the time until now out of the throughput, and the steps made in it."""
        self.started, self.waited = time.perf_counter(), 0.0
        self.untimed = len(self.metrics)


def train_loop(
    state: TrainState,
    *,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, jax.Array]]],
    batches: Iterator[Any],
    images_per_step: int,
    schedule: Schedule,
    on_first_step: Callable[[], None],
    on_log: Callable[[int, dict[str, float]], None],
    on_eval: Callable[[TrainState, int], None],
    on_save: Callable[[TrainState, int], None],
    should_stop: Callable[[], bool],
) -> tuple[TrainState, bool]:
    """Run optimiser updates until the schedule's end.

    Args:
        state: where to start; `state.step` says how far it is.
        train_step: the compiled step; the state that goes in is donated.
        batches: batches on the device, from the state's step on; `ReadingGivenUp` in
            place of one saves and leaves.
        images_per_step: crops per update, for the throughput.
        schedule: when to log, evaluate, save and stop.
        on_first_step: told when the first step is done, which waits for the first batch
            and for the compiler.
        on_log: receives the step and the means of the metrics since the last call,
            with `images_per_second` and `data_wait_fraction`.
        on_eval: validates; it may ask `should_stop` too and break off.
        on_save: writes a checkpoint.
        should_stop: asked after every step and validation: save and leave now?

    Returns:
        The last state, and whether the loop was stopped before the schedule's end.

    Raises:
        NonFiniteLossError: a loss of the last interval is NaN or infinite.
    """
    interval = _Interval()
    first_step = step = int(state.step)
    while step < schedule.last_step:
        before = time.perf_counter()
        try:
            batch = next(batches)
        except ReadingGivenUp:
            if interval.metrics:
                on_log(step, _summarise(interval, step, images_per_step))
            if step > first_step:
                on_save(state, step)
            return state, True
        interval.waited += time.perf_counter() - before
        with jax.transfer_guard("disallow"):
            state, metrics = train_step(state, batch)
        step += 1
        interval.metrics.append(metrics)
        if len(interval.metrics) > STEPS_IN_FLIGHT:
            jax.block_until_ready(interval.metrics[-1 - STEPS_IN_FLIGHT])
        stopping = step == schedule.stop_at or should_stop()
        last = step == schedule.last_step
        evaluating = step % schedule.eval_every == 0 or last
        saving = step % schedule.save_every == 0 or last
        # Not the first step of a resumed run: resuming adds no row, changes no mean.
        logging = step % schedule.log_every == 0 or step == 1
        if logging or evaluating or saving or stopping:
            on_log(step, _summarise(interval, step, images_per_step))
            interval = _Interval()
        if step == first_step + 1:
            if interval.metrics:
                jax.block_until_ready(metrics)  # logged, it was waited for
            on_first_step()
            interval.restart_clock()
        if evaluating and not stopping:
            on_eval(state, step)
            stopping = should_stop()
        if saving or stopping:
            on_save(state, step)
        if evaluating or saving:
            interval.restart_clock()
        if stopping and (not last or should_stop()):
            return state, True
    return state, False


def _summarise(
    interval: _Interval, step: int, images_per_step: int
) -> dict[str, float]:
    """Fetch the interval's metrics: their means, the throughput, the waiting share."""
    fetched = jax.device_get(interval.metrics)
    seconds = time.perf_counter() - interval.started
    losses = [float(metrics["loss"]) for metrics in fetched]
    first = step - len(fetched) + 1
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss} at step {first + offset} (steps {first} to {step} "
                "were looked at): expected a finite number",
                step=first + offset,
            )
    means = {
        name: float(np.mean([metrics[name] for metrics in fetched]))
        for name in fetched[0]
    }
    timed = len(fetched) - interval.untimed
    means["images_per_second"] = images_per_step * timed / seconds
    means["data_wait_fraction"] = interval.waited / seconds
    return means
