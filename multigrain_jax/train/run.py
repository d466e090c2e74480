"""Task `train`: from a config to a trained checkpoint, its metrics and its report."""

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.data.pipeline import make_eval_batches, make_train_batches
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources import ImageSource, open_source
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    make_eval_step,
)
from multigrain_jax.evaluation.final_report import evaluate_and_report
from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.metric_writer import MetricWriter, write_plots
from multigrain_jax.models.multigrain import BACKBONES, create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.train.check import check_train_config
from multigrain_jax.train.loop import Schedule, train_loop
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer
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
    first_step = int(built.state.step)
    schedule = _make_schedule(config, built.stream, first_step)
    if config.dry_run:
        writer = MetricWriter(None)
    else:
        (workdir / "config.json").write_text(
            json.dumps(config.to_dict(), indent=2) + "\n"
        )
        writer = MetricWriter(workdir, progress_total=schedule.last_step)
        writer.truncate_after(first_step)
    results: dict[str, float] = {}

    def validate(state: TrainState, step: int) -> None:
        if built.val_source is None:
            return
        batches = _eval_batches(config, built.val_source)
        if config.dry_run:
            batches = itertools.islice(batches, 1)
        scores = evaluate_classification(
            built.eval_step, model_variables(state), batches, mesh=built.mesh
        )
        results.update({f"val/{name}": value for name, value in scores.items()})
        writer.write(step, _with_epoch(results, step, built.stream))

    def log(step: int, metrics: dict[str, float]) -> None:
        named = {f"train/{name}": value for name, value in metrics.items()}
        named["learning_rate"] = float(built.learning_rate(step - 1))
        writer.write(step, _with_epoch(named, step, built.stream))

    def save(state: TrainState, step: int) -> None:
        if built.checkpoints is not None:
            built.checkpoints.save(state, step)

    writer.note(_describe(config, built))
    batches = _device_batches(config, built, workdir, first_step, schedule.last_step)
    if config.validate_first and first_step == 0:
        validate(built.state, 0)
    with _stop_signals() as stop_requested:
        state, stopped = train_loop(
            built.state,
            train_step=_make_step(config, built),
            batches=batches,
            images_per_step=config.batch_size * config.gradient_accumulation_steps,
            schedule=schedule,
            on_log=log,
            on_eval=validate,
            on_save=save,
            should_stop=stop_requested,
        )
    if built.checkpoints is not None:
        built.checkpoints.close()
    writer.close()
    if stopped:
        raise StoppedEarly(
            f"after step {int(state.step)} of {schedule.last_step}; the same command "
            f"continues from {workdir}"
        )
    if config.dry_run:
        return results
    write_plots(workdir)
    if config.report_split:
        results.update(_report(config, built, state, workdir))
    results["seconds"] = time.perf_counter() - started
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def _build(config: ConfigDict, workdir: Path) -> _Run:
    """Open the data, create the model and the optimiser, find the state to start."""
    mesh = make_mesh()
    source = _open(config, config.data.split)
    val_source = _open(config, config.data.val_split) if config.data.val_split else None
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
        dtype=_compute_dtype(config.compute_dtype),
        batch_norm_group_size=config.batch_norm_group_size,
        seed=config.seed,
    )
    train_graphdef, eval_graphdef, variables = split_for_training(model)
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
    state, checkpoints = start_state(
        config.to_dict(),
        workdir,
        variables=variables,
        tx=tx,
        stream=stream,
        num_classes=num_classes,
        class_names=source.class_names,
    )
    backbone = BACKBONES[config.backbone]
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
            eval_graphdef, mean=backbone.mean, std=backbone.std, mesh=mesh
        ),
        checkpoints=checkpoints,
    )


def _open(config: ConfigDict, split: str) -> ImageSource:
    return open_source(
        source=config.data.source,
        root=config.data.root,
        split=split,
        list_file=config.data.list_file,
        num_images=config.data.num_images,
        local_cache_dir=config.data.local_cache_dir,
    )


def _compute_dtype(name: str) -> Any:
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def _make_schedule(
    config: ConfigDict, stream: RepeatedStream, first_step: int
) -> Schedule:
    epoch = stream.steps_per_epoch
    last_step = config.num_epochs * epoch
    if config.dry_run:
        last_step = min(last_step, first_step + 2)
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
        gradient_accumulation_steps=config.gradient_accumulation_steps,
    )


def _device_batches(
    config: ConfigDict, built: _Run, workdir: Path, first_step: int, last_step: int
) -> Iterator[dict[str, jax.Array]]:
    """This host's batches from `first_step` on, put on its devices."""
    accumulation = config.gradient_accumulation_steps
    host_batches = make_train_batches(
        built.source,
        built.stream,
        train_size=config.train_size,
        augmentation=config.augmentation,
        crop_area_min=config.crop_area_min,
        seed=config.seed,
        first_step=first_step,
        num_steps=last_step - first_step,
        batch_slice=slice(0, config.batch_size * accumulation),
        num_workers=config.num_workers,
        prefetch=config.prefetch_batches,
    )
    skips = SkipLog(
        built.source,
        workdir=None if config.dry_run else workdir,
        max_fraction=config.max_skipped_fraction,
    )
    for batch in host_batches:
        skips.record(batch["bad_index"])
        arrays = {name: batch[name] for name in ("image", "label", "instance_id")}
        if accumulation > 1:
            arrays = {
                name: np.reshape(a, (accumulation, -1, *a.shape[1:]))
                for name, a in arrays.items()
            }
        yield put_batch(built.mesh, arrays, axis=1 if accumulation > 1 else 0)


def _eval_batches(config: ConfigDict, source: ImageSource) -> Iterator[Any]:
    return make_eval_batches(
        source,
        test_size=config.test_size,
        test_mode=config.test_mode,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )


def _with_epoch(
    metrics: dict[str, float], step: int, stream: RepeatedStream
) -> dict[str, float]:
    return {"epoch": step / stream.steps_per_epoch, **metrics}


def _describe(config: ConfigDict, built: _Run) -> str:
    return (
        f"{config.backbone}, {len(built.source.class_names)} classes, "
        f"{len(built.source)} images, {built.stream.steps_per_epoch} steps per epoch, "
        f"{config.num_epochs} epochs, {jax.device_count()} "
        f"{jax.default_backend()} device(s)"
    )


def _report(
    config: ConfigDict, built: _Run, state: TrainState, workdir: Path
) -> dict[str, float]:
    backbone = BACKBONES[config.backbone]
    return evaluate_and_report(
        built.eval_graphdef,
        model_variables(state),
        _open(config, config.report_split),
        split=config.report_split,
        mean=backbone.mean,
        std=backbone.std,
        test_size=config.test_size,
        batch_size=config.batch_size,
        mesh=built.mesh,
        workdir=workdir,
    )


class _stop_signals:
    """While active, SIGTERM and SIGINT ask the loop to save and leave."""

    def __enter__(self) -> Callable[[], bool]:
        self._requested = False
        self._previous = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return lambda: self._requested

    def _request(self, number: int, frame: Any) -> None:
        self._requested = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
