"""Task `train`: from a config to a trained checkpoint, its metrics and its report."""

import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from multigrain_jax.data.simd_resize import CROP_RESIZES, resolve_crop_resize
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.watchdog import never
from multigrain_jax.distributed import (
    agree,
    agree_to_stop,
    all_done,
    own_folder,
    quiet_unless_first,
    start_hosts,
)
from multigrain_jax.errors import ReadingGivenUp, StoppedEarly
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    for_several,
    make_eval_step,
)
from multigrain_jax.growing_file import close_lists
from multigrain_jax.lock import WorkdirLock, lock_workdir
from multigrain_jax.metric_writer import MetricWriter, read_metrics
from multigrain_jax.models.multigrain import BACKBONES, Variables
from multigrain_jax.pages.plots import write_plots
from multigrain_jax.runtime import look_for_devices
from multigrain_jax.tasks.final_report import evaluate_and_report
from multigrain_jax.tasks.inputs import (
    batches_from_config,
    plan_from_config,
    reading_from_config,
)
from multigrain_jax.tasks.prepare import prepare
from multigrain_jax.tasks.train_build import build_run, make_feed, make_step
from multigrain_jax.tasks.train_check import check_train_config
from multigrain_jax.train.loop import NonFiniteLossError, Schedule, train_loop
from multigrain_jax.train.profile import StepProfile
from multigrain_jax.train.recorder import Recorder, Run, Validate
from multigrain_jax.train.signals import StopSignals, TimeLimit
from multigrain_jax.train.state import (
    TrainState,
    average_variables,
    model_variables,
)
from multigrain_jax.workdir import METRICS_FILE, write_config, write_results
from multigrain_jax.working_copy import seconds_to_upload

PROFILE_FOLDER = "profile"
# Before the names of the scores that the running average of the weights has.
OF_AVERAGE = "ema_"


def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Train as the config says, in `workdir`; returns what results.json holds.

    A workdir with checkpoints is continued where it stands. Of several hosts process 0
    has results.

    Raises:
        InputError: a config or data that cannot work.
        StoppedEarly: the run was interrupted; its state is saved.
    """
    started = time.perf_counter()
    config = prepare(config, workdir)
    start_hosts(**config.distributed.to_dict())
    look_for_devices()
    check_train_config(config.to_dict(), num_devices=jax.device_count())
    config = _resolved(config)
    if config.dry_run:
        return _run(config, workdir, started, None)
    own = own_folder(workdir)
    with lock_workdir(own) as lock, quiet_unless_first(), all_done():
        try:
            return _run(config, workdir, started, lock)
        finally:
            close_lists()


def _resolved(config: ConfigDict) -> ConfigDict:
    """A copy that says how crops are resized, for all hosts and for resumed runs."""
    copy = config.copy_and_resolve_references()
    if config.data.backend == "grain":
        found = CROP_RESIZES.index(resolve_crop_resize(config.crop_resize))
        copy.crop_resize = CROP_RESIZES[agree(found)]
    return copy


def _run(
    config: ConfigDict, workdir: Path, started: float, lock: WorkdirLock | None
) -> dict[str, float]:
    built = build_run(config.to_dict(), workdir)
    workdir = own_folder(workdir)
    schedule = _make_schedule(config, built)
    limit = TimeLimit(
        config.max_train_hours,
        started=started,
        save_seconds=lambda: (
            (built.checkpoints.longest_save() if built.checkpoints else 0.0)
            + seconds_to_upload()
        ),
    )
    with contextlib.ExitStack() as stack:
        # First in, last out: a second signal must not end the last save.
        signalled = stack.enter_context(StopSignals())
        writer = _open_writer(config, built, workdir, schedule)
        stack.callback(writer.close)
        if built.checkpoints is not None:
            stack.callback(built.checkpoints.close)
        should_stop = agree_to_stop(lambda: signalled() or limit.reached())
        # While one host's images hang, the others wait within a step: no agreement.
        give_up = signalled if jax.process_count() == 1 else never
        recorder = Recorder(
            built,
            workdir,
            writer,
            validate_state=_make_validation(
                config, built, workdir, should_stop, give_up
            ),
            num_workers=config.num_workers,
            lock=lock,
            results=_last_validation(config, workdir),
        )
        state, stopped = _train(config, schedule, recorder, should_stop, give_up)
    if stopped:
        raise StoppedEarly(
            f"after step {int(state.step)} of {schedule.last_step}; the same command "
            f"continues from {workdir}"
        )
    if config.dry_run:
        return recorder.results
    is_first, results = jax.process_index() == 0, recorder.results
    if is_first:
        write_plots(workdir)
    if built.report_source is not None:
        results |= _report(config, built, built.report_source, state, workdir)
    if not is_first:
        return {}
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def _train(
    config: ConfigDict,
    schedule: Schedule,
    recorder: Recorder,
    should_stop: Callable[[], bool],
    give_up: Callable[[], bool],
) -> tuple[TrainState, bool]:
    """All updates; returns the last state and whether the run was interrupted."""
    built, workdir = recorder.run, recorder.workdir
    first_step = int(built.state.step)
    if _validation_is_due(config, workdir, schedule, first_step):
        recorder.validate(built.state, first_step)
        if should_stop():
            return built.state, True
    settings = config.to_dict()
    batches = make_feed(
        settings,
        built,
        workdir,
        first_step=first_step,
        last_step=schedule.last_step,
        give_up=give_up,
    )
    steps = 0 if config.dry_run else config.profile_steps
    profile = StepProfile(workdir / PROFILE_FOLDER, num_steps=steps)
    with contextlib.closing(batches), contextlib.closing(profile):
        try:
            return train_loop(
                built.state,
                train_step=profile.around(make_step(settings, built)),
                batches=recorder.writer.ticking(batches, first_step=first_step),
                images_per_step=config.batch_size * config.gradient_accumulation_steps,
                schedule=schedule,
                on_first_step=recorder.first_step,
                on_log=recorder.log,
                on_eval=recorder.validate,
                on_save=recorder.save,
                should_stop=should_stop,
            )
        except NonFiniteLossError as error:
            raise recorder.explained(error) from error


def _make_validation(
    config: ConfigDict,
    built: Run,
    workdir: Path,
    should_stop: Callable[[], bool],
    give_up: Callable[[], bool],
) -> Validate:
    """The validation between updates; a dry run looks at one batch of it."""
    source, settings = built.val_source, config.to_dict()
    if source is None:
        return lambda state: {}
    backbone = BACKBONES[config.backbone]
    eval_step = for_several(
        make_eval_step(built.eval_graphdef, backbone=backbone, mesh=built.mesh)
    )

    def validate(state: TrainState) -> dict[str, float] | None:
        plan = plan_from_config(
            settings, source, backbone=backbone, test_size=config.test_size
        )
        records = None if config.dry_run else workdir
        each: list[dict[str, float]] = []
        batches = batches_from_config(
            settings, source, plan, workdir=records, give_up=give_up
        )
        with contextlib.closing(batches), contextlib.suppress(ReadingGivenUp):
            some = itertools.islice(batches, 1 if config.dry_run else None)
            each = evaluate_classification(
                eval_step,
                _evaluated(state),
                itertools.takewhile(lambda _: not should_stop(), some),
                mesh=built.mesh,
            )
        if should_stop():
            return None  # perhaps before the first batch
        raw, *averaged = each
        of_average = {
            OF_AVERAGE + name: value
            for scores in averaged
            for name, value in scores.items()
        }
        return raw | of_average

    return validate


def _evaluated(state: TrainState) -> list[Variables]:
    """The weights of the last step, and their running average if one is kept."""
    average = average_variables(state)
    return [model_variables(state), *([] if average is None else [average])]


def _validation_is_due(
    config: ConfigDict, workdir: Path, schedule: Schedule, step: int
) -> bool:
    """Whether to validate before the first update.

    At the start of training, and where a run was stopped before its validation.
    """
    if step == 0:
        return config.validate_first
    if step % schedule.eval_every != 0 and step != schedule.last_step:
        return False
    done = any(
        row["step"] == step and "val/top1" in row
        for row in read_metrics(workdir / METRICS_FILE)
    )
    return not agree(int(done))


def _last_validation(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """The scores of the last validation before the run was interrupted."""
    rows = [] if config.dry_run else read_metrics(workdir / METRICS_FILE)
    validations = [row for row in rows if "val/top1" in row]
    if not validations:
        return {}
    return {k: v for k, v in validations[-1].items() if k.startswith("val/")}


def _open_writer(
    config: ConfigDict, built: Run, workdir: Path, schedule: Schedule
) -> MetricWriter:
    if config.dry_run:
        writer = MetricWriter(None)
    else:
        write_config(workdir, built.record)
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


def _make_schedule(config: ConfigDict, built: Run) -> Schedule:
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


def _report(
    config: ConfigDict,
    built: Run,
    source: ImageSource,
    state: TrainState,
    workdir: Path,
) -> dict[str, float]:
    """The scores of the last weights, and of their average, whose page stays."""
    scores: dict[str, float] = {}
    is_other = config.report_split != config.data.split
    labelled = bool(built.source.class_names)
    train = built.source if config.report_leaks and is_other and labelled else None
    if built.val_source is not None and config.report_split != config.data.val_split:
        print(
            f"{config.data.val_split} is {len(built.val_source)} photos, looked at on "
            f"the way; the run's scores are those of {config.report_split}"
        )
    for variables, prefix in zip(_evaluated(state), ("", OF_AVERAGE), strict=False):
        scores |= evaluate_and_report(
            built.eval_graphdef,
            variables,
            source,
            split=config.report_split,
            prefix=prefix,
            backbone=BACKBONES[config.backbone],
            test_size=config.test_size,
            test_mode=config.test_mode,
            batch_size=config.batch_size,
            reading=reading_from_config(config.to_dict()),
            mesh=built.mesh,
            workdir=workdir,
            train=train,
        )
    return scores
