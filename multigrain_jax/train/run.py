"""Task `train`: from a config to a trained checkpoint, its metrics and its report."""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources import ImageSource, open_source
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    make_eval_step,
)
from multigrain_jax.evaluation.final_report import evaluate_and_report
from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import compute_dtype, make_mesh, put_replicated
from multigrain_jax.metric_writer import MetricWriter, write_plots
from multigrain_jax.models.multigrain import BACKBONES, create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.train.check import check_train_config
from multigrain_jax.train.feed import eval_batches, train_batches
from multigrain_jax.train.loop import Schedule, train_loop
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer
from multigrain_jax.train.signals import StopSignals
from multigrain_jax.train.start import RunCheckpoints, start_state
from multigrain_jax.train.state import TrainState, model_variables, split_for_training
from multigrain_jax.train.step import make_train_step


@dataclass(frozen=True)
class _Run:
    """Everything that is built once from the config."""

    mesh: Mesh
    source: ImageSource
    val_source: ImageSource | None
    stream: RepeatedStream
    train_graphdef: nnx.GraphDef
    eval_graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    learning_rate: Callable[[Any], jax.Array]
    state: TrainState
    eval_step: Callable[..., Any]
    checkpoints: RunCheckpoints | None


@dataclass
class _Recorder:
    """What happens beside the updates: validation, metrics, checkpoints."""

    config: ConfigDict
    built: _Run
    workdir: Path
    writer: MetricWriter
    results: dict[str, float] = field(default_factory=dict)

    def validate(self, state: TrainState, step: int) -> None:
        source = self.built.val_source
        if source is None:
            return
        batches = eval_batches(self.config.to_dict(), source, workdir=self.workdir)
        with contextlib.closing(batches):
            (scores,) = evaluate_classification(
                self.built.eval_step,
                model_variables(state),
                itertools.islice(batches, 1) if self.config.dry_run else batches,
                mesh=self.built.mesh,
            )
        self.results |= {f"val/{name}": value for name, value in scores.items()}
        self._write(step, self.results)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        rate = {"learning_rate": float(self.built.learning_rate(step - 1))}
        self._write(step, {f"train/{k}": v for k, v in metrics.items()} | rate)

    def save(self, state: TrainState, step: int) -> None:
        if self.built.checkpoints is not None:
            self.built.checkpoints.save(state, step)

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        epoch = step / self.built.stream.steps_per_epoch
        self.writer.write(step, {"epoch": epoch, **metrics})


def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Train as the config says, in `workdir`; returns what results.json holds.

    A workdir with checkpoints is continued where it stands.

    Raises:
        InputError: a config or data that cannot work.
        StoppedEarly: the run was interrupted; its state is saved.
    """
    started = time.perf_counter()
    check_train_config(config.to_dict(), num_devices=jax.device_count())
    if not config.dry_run:
        workdir.mkdir(parents=True, exist_ok=True)
    built = _build(config, workdir)
    schedule = _make_schedule(config, built)
    writer = _open_writer(config, built, workdir, schedule)
    recorder = _Recorder(config, built, workdir, writer)
    try:
        state, stopped = _train(config, built, workdir, schedule, recorder)
    finally:
        if built.checkpoints is not None:
            built.checkpoints.close()
        writer.close()
    if stopped:
        raise StoppedEarly(
            f"after step {int(state.step)} of {schedule.last_step}; the same command "
            f"continues from {workdir}"
        )
    if config.dry_run:
        return recorder.results
    results = recorder.results
    write_plots(workdir)
    if config.report_split:
        results |= _report(config, built, state, workdir)
    results["seconds"] = time.perf_counter() - started
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def _train(
    config: ConfigDict,
    built: _Run,
    workdir: Path,
    schedule: Schedule,
    recorder: _Recorder,
) -> tuple[TrainState, bool]:
    """All updates; returns the last state and whether the run was interrupted."""
    first_step = int(built.state.step)
    batches = train_batches(
        config.to_dict(),
        built.source,
        built.stream,
        mesh=built.mesh,
        workdir=workdir,
        first_step=first_step,
        last_step=schedule.last_step,
    )
    if config.validate_first and first_step == 0:
        recorder.validate(built.state, 0)
    with contextlib.closing(batches), StopSignals() as stop_requested:
        return train_loop(
            built.state,
            train_step=_make_step(config, built),
            batches=batches,
            images_per_step=config.batch_size * config.gradient_accumulation_steps,
            schedule=schedule,
            on_log=recorder.log,
            on_eval=recorder.validate,
            on_save=recorder.save,
            should_stop=stop_requested,
        )


def _open_writer(
    config: ConfigDict, built: _Run, workdir: Path, schedule: Schedule
) -> MetricWriter:
    if config.dry_run:
        writer = MetricWriter(None)
    else:
        text = json.dumps(config.to_dict(), indent=2)
        (workdir / "config.json").write_text(text + "\n")
        writer = MetricWriter(workdir, progress_total=schedule.last_step)
        step = int(built.state.step)
        # A run that was killed before its first checkpoint writes step 0 anew.
        writer.truncate_after(step if step else -1)
    writer.note(
        f"{config.backbone}, {len(built.source.class_names)} classes, "
        f"{len(built.source)} images, {built.stream.steps_per_epoch} steps per epoch, "
        f"{config.num_epochs} epochs, {jax.device_count()} "
        f"{jax.default_backend()} device(s)"
    )
    return writer


def _build(config: ConfigDict, workdir: Path) -> _Run:
    """Open the data, create the model and the optimiser, find the state to start."""
    mesh = make_mesh()
    source = _open(config, config.data.split)
    val_source = None
    if config.data.val_split:
        val_source = _open(config, config.data.val_split, source.class_names)
    accumulation = config.gradient_accumulation_steps
    stream = RepeatedStream(
        num_images=len(source),
        num_repeats=config.num_repeats,
        epoch_len_factor=config.epoch_len_factor,
        batch_size=config.batch_size * accumulation,
        seed=config.seed,
    )
    num_classes = config.num_classes or len(source.class_names)
    model = create_model(
        config.backbone,
        num_classes=num_classes,
        pooling_exponent=config.pooling_exponent,
        dtype=compute_dtype(config.compute_dtype),
        batch_norm_group_size=config.batch_norm_group_size,
        seed=config.seed,
    )
    train_graphdef, eval_graphdef, variables = split_for_training(model)
    learning_rate, tx = _make_optimizer(config, stream)
    state, checkpoints = start_state(
        config.to_dict(),
        workdir,
        variables=variables,
        tx=tx,
        stream=stream,
        num_classes=num_classes,
        class_names=source.class_names,
    )
    return _Run(
        mesh=mesh,
        source=source,
        val_source=val_source,
        stream=stream,
        train_graphdef=train_graphdef,
        eval_graphdef=eval_graphdef,
        tx=tx,
        learning_rate=learning_rate,
        state=put_replicated(mesh, state),
        eval_step=make_eval_step(
            eval_graphdef, backbone=BACKBONES[config.backbone], mesh=mesh
        ),
        checkpoints=checkpoints,
    )


def _make_optimizer(
    config: ConfigDict, stream: RepeatedStream
) -> tuple[Callable[[Any], jax.Array], optax.GradientTransformation]:
    learning_rate = make_learning_rate(
        config.learning_rate_schedule,
        base=config.learning_rate,
        steps_per_epoch=stream.steps_per_epoch,
        num_epochs=config.num_epochs,
        drop_epochs=config.learning_rate_drop_epochs,
        drop_factors=config.learning_rate_drop_factors,
        warmup_epochs=config.warmup_epochs,
    )
    tx = make_optimizer(
        learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        beta_learning_rate_factor=config.beta_learning_rate_factor,
    )
    return learning_rate, tx


def _open(
    config: ConfigDict, split: str, class_names: Sequence[str] | None = None
) -> ImageSource:
    """A split; with `class_names`, numbered as the training images' classes are."""
    return open_source(
        source=config.data.source,
        root=config.data.root,
        split=split,
        list_file=config.data.list_file,
        num_images=config.data.num_images,
        local_cache_dir=config.data.local_cache_dir,
        class_names=class_names,
    )


def _make_schedule(config: ConfigDict, built: _Run) -> Schedule:
    epoch = built.stream.steps_per_epoch
    last_step = config.num_epochs * epoch
    if config.dry_run:
        last_step = min(last_step, int(built.state.step) + 2)
    return Schedule(
        last_step=last_step,
        log_every=config.log_every_steps,
        eval_every=config.eval_every_epochs * epoch,
        save_every=config.checkpoint_every_epochs * epoch,
        stop_at=config.stop_at_step,
    )


def _make_step(config: ConfigDict, built: _Run) -> Callable[..., Any]:
    backbone = BACKBONES[config.backbone]
    max_positives = min(
        built.stream.max_positives, config.sampling_group_size - 1, config.batch_size
    )

    def select_pairs(
        key: jax.Array, normalized: jax.Array, instance_ids: jax.Array
    ) -> Pairs | None:
        if config.classification_weight == 1:
            return None
        return sample_pairs(
            key,
            normalized,
            instance_ids,
            negative_sampling=config.negative_sampling,
            group_size=config.sampling_group_size,
            max_positives=max_positives,
        )

    return make_train_step(
        built.train_graphdef,
        built.tx,
        mesh=built.mesh,
        seed=config.seed,
        prepare_images=partial(
            augment,
            augmentation=config.augmentation,
            mean=backbone.mean,
            std=backbone.std,
        ),
        select_pairs=select_pairs,
        classification_weight=config.classification_weight,
        margin=config.margin,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
    )


def _report(
    config: ConfigDict, built: _Run, state: TrainState, workdir: Path
) -> dict[str, float]:
    return evaluate_and_report(
        built.eval_graphdef,
        model_variables(state),
        _open(config, config.report_split, built.source.class_names),
        split=config.report_split,
        backbone=BACKBONES[config.backbone],
        test_size=config.test_size,
        test_mode=config.test_mode,
        batch_size=config.batch_size,
        mesh=built.mesh,
        workdir=workdir,
    )
