"""What happens beside the updates: validation, metrics, checkpoints."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.checkpoint import CHECKPOINTS_FOLDER, apart_folder
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import agree
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.growing_file import flush_all
from multigrain_jax.lock import WorkdirLock
from multigrain_jax.metric_writer import MetricWriter
from multigrain_jax.remedies import IN_CLONE
from multigrain_jax.runtime import seconds_since_launch
from multigrain_jax.train.loop import NonFiniteLossError
from multigrain_jax.train.sample_log import write_non_finite_batch
from multigrain_jax.train.start import RunCheckpoints
from multigrain_jax.train.state import TrainState, all_finite

# A larger share of the time spent waiting for data is worth a line.
MUCH_WAITING = 0.1
# How long a save waits for what was recorded before it, where the disk hangs.
RECORDS_PATIENCE_S = 1.0

# A state to the scores on the validation split by name; empty where there is no split,
# None where it was broken off since the run is to stop.
Validate = Callable[[TrainState], dict[str, float] | None]


@dataclass(frozen=True)
class Run:
    """Everything of a run that is built once.

    Attributes:
        mesh: the devices.
        source: the training images.
        val_source: those of the validation; None: there is none.
        report_source: those of the report at the end; None: there is none.
        stream: which of them stands where.
        train_graphdef: the model's structure in training.
        eval_graphdef: the same in evaluation.
        tx: the optimiser.
        learning_rate: its rate as a function of the step.
        state: where the run begins.
        record: the config by which it was or will be trained.
        checkpoints: where its states go; None in a dry run, and on all hosts but one.
    """

    mesh: Mesh
    source: ImageSource
    val_source: ImageSource | None
    report_source: ImageSource | None
    stream: RepeatedStream
    train_graphdef: nnx.GraphDef
    eval_graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    learning_rate: Callable[[jax.Array | int], jax.Array]
    state: TrainState
    record: Mapping[str, Any]
    checkpoints: RunCheckpoints | None


@dataclass
class Recorder:
    """Writes what there is to say of a run, and its checkpoints.

    Attributes:
        run: what was built.
        workdir: its folder.
        writer: where metrics go.
        validate_state: the validation.
        num_workers: reading processes, for a hint where they are too few.
        lock: on the workdir; None in a dry run.
        results: the scores of the last validation, by name.
    """

    run: Run
    workdir: Path
    writer: MetricWriter
    validate_state: Validate
    num_workers: int
    lock: WorkdirLock | None
    results: dict[str, float] = field(default_factory=dict)
    _logged: int = field(default=0, init=False)
    _told_of_waiting: bool = field(default=False, init=False)

    def validate(self, state: TrainState, step: int) -> None:
        """Write the scores on the validation split, if there is one."""
        scores = self.validate_state(state)
        if scores is None:
            self.writer.note("validation broken off: the resumed run makes up for it")
        elif scores:
            self.results |= {f"val/{name}": value for name, value in scores.items()}
            self._write(step, self.results)

    def first_step(self) -> None:
        """Tell how long the first step took, from the launch on."""
        self.writer.note(f"first step after {seconds_since_launch():.1f} s")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the means of an interval; hint at what slows the run."""
        rate = {"learning_rate": float(self.run.learning_rate(step - 1))}
        self._write(step, {f"train/{k}": v for k, v in metrics.items()} | rate)
        if self.run.checkpoints is not None:
            self.run.checkpoints.try_again()
        self._logged += 1
        # The first interval may be one step, which waits for the first batch.
        waiting = self._logged > 1 and metrics["data_wait_fraction"] > MUCH_WAITING
        if waiting and not self._told_of_waiting:
            self._told_of_waiting = True
            self.writer.note(
                f"{metrics['data_wait_fraction']:.0%} of the time goes on waiting for "
                f"data: raise num_workers (now {self.num_workers}; this machine "
                f"has {os.cpu_count()} cores), keep the photos on a local disk "
                "(data.local_cache_dir), or store smaller ones"
                + ("; measure/input.py measures the reading" if IN_CLONE else "")
            )

    def save(self, state: TrainState, step: int) -> None:
        """Write a checkpoint.

        Raises:
            NonFiniteLossError: the state holds NaN or infinity; it is not saved.
            StoppedEarly: another run has come into the workdir; the state is saved
                beside its checkpoints.
        """
        # An update can overflow although the loss before it was finite.
        if not all_finite(state):
            raise NonFiniteLossError(
                f"a parameter is NaN or infinite after step {step}: expected finite "
                "numbers; the state is not saved",
                step=step,
            )
        # A run that is killed later, and resumed here, lacks no row of before.
        flush_all(RECORDS_PATIENCE_S)
        if agree(int(self.lock is not None and not self.lock.is_own())):
            raise StoppedEarly(self._left_to_another_run(state, step))
        if self.run.checkpoints is not None:
            self.run.checkpoints.save(state, step)

    def _left_to_another_run(self, state: TrainState, step: int) -> str:
        """Save the state where the other run does not look; says what to do."""
        holder = "another process" if self.lock is None else self.lock.holder()
        text = f"after step {step}: {self.workdir} is now in use by {holder}"
        if self.run.checkpoints is None:
            return text
        name = apart_folder()
        apart = self.run.checkpoints.apart(name)
        apart.save(state, step)
        apart.close()
        return (
            f"{text}, whose lock file has taken the place of this run's; the state is "
            f"saved in {self.workdir / name}: make that folder the {CHECKPOINTS_FOLDER}"
            " of another --workdir to go on from there"
        )

    def explained(self, error: NonFiniteLossError) -> NonFiniteLossError:
        """The error with what helps: the batch, the last good state, a remedy."""
        sample_ids = self.run.stream.sample_ids(error.step - 1)
        lines = [str(error)]
        if self.run.checkpoints is not None:
            path = write_non_finite_batch(
                self.workdir,
                self.run.source,
                step=error.step,
                sample_ids=sample_ids.tolist(),
            )
            lines += [
                f"last good checkpoint: {self.run.checkpoints.newest()}",
                f"images of step {error.step}: {path}",
            ]
        lines.append(
            "the same command runs into it again: lower the learning rate, lengthen "
            "warmup_epochs, or go back further with resume_step"
        )
        return NonFiniteLossError("\n  ".join(lines), step=error.step)

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        epoch = step / self.run.stream.steps_per_epoch
        self.writer.write(step, {"epoch": epoch, **metrics})
