"""A run that goes on from its own checkpoint, with the same data and config."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from multigrain_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    DamagedCheckpointError,
    checkpoint_steps,
    load_average,
    load_checkpoint,
    load_optimizer_arrays,
    set_aside,
)
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.distributed import agree
from multigrain_jax.errors import InputError
from multigrain_jax.metric_writer import read_metrics
from multigrain_jax.train.config_change import (
    as_it_ran,
    check_resumed_config,
    split_by_effect,
)
from multigrain_jax.train.state import (
    TrainState,
    checkpoint_average,
    checkpoint_model,
    with_average,
)
from multigrain_jax.train.versions import compare_versions
from multigrain_jax.trees import nested_to_tree
from multigrain_jax.workdir import METRICS_FILE

LISTED_NAMES = 5
# A checkpoint, its optimiser's arrays, of whichever optimiser, and its average if any.
Found = tuple[Checkpoint, dict[str, Any], dict[str, Any] | None]


@dataclass(frozen=True)
class Resume:
    """How a workdir's own checkpoints are continued.

    Attributes:
        step: which of them; None: the newest.
        allow_config_change: whether the run may see other data or shapes.
        start_anew: whether a run whose checkpoints are gone begins at step 0.
        save_every: after so many steps each a checkpoint is due.
        dry_run: nothing is written: damaged checkpoints stay where they are.
        idle_keys: dotted keys that the config does not read: a change is none.
    """

    step: int | None
    allow_config_change: bool
    start_anew: bool
    save_every: int
    dry_run: bool
    idle_keys: Collection[str] = ()


class DataRecord(NamedTuple):
    """What a run's images are.

    Attributes:
        class_names: the name of each label.
        digest: of their names, sizes and labels, from `data_digest`.
    """

    class_names: Sequence[str]
    digest: Mapping[str, str]


def resume_state(
    own: Resume,
    workdir: Path,
    *,
    fresh: TrainState,
    stream: RepeatedStream,
    data: DataRecord,
    record: Mapping[str, Any],
    last_step: int,
) -> tuple[TrainState, Mapping[str, Any]]:
    """The state of the workdir's newest sound checkpoint, and the config that it means.

    Arguments as of `start_state`.

    Raises:
        InputError: no sound checkpoint, or another config or data than it was made by.
    """
    checkpoint, optimizer, average = _chosen(own, workdir)
    _require_position(checkpoint)
    _require_classes(checkpoint, fresh)
    allowed = own.allow_config_change
    changes = check_resumed_config(
        checkpoint.meta["config"], record, allowed=allowed, idle_keys=own.idle_keys
    )
    finished = checkpoint.step >= last_step
    effective, idle = split_by_effect(changes) if finished else (changes, [])
    for change in effective:
        print(f"config changed: {change}")
    _compare_data(own, checkpoint, stream.num_images, data)
    if not finished:
        compare_versions(checkpoint.data.get("versions"), allowed=allowed)
    if finished:
        print(
            f"nothing left to train: {checkpoint.path} is of step {checkpoint.step}, "
            f"and the run ends at {last_step}"
        )
        for change in idle:
            print(f"config changed, without effect: {change}")
        record = as_it_ran(record, idle)
    else:
        print(f"resuming from {checkpoint.path}")
    model, opt_state = (
        nested_to_tree(nested, like=like, name=f"{checkpoint.path}/{item}")
        for item, nested, like in (
            ("model", checkpoint.model, checkpoint_model(fresh)),
            ("optimizer", optimizer, fresh.opt_state),
        )
    )
    state = TrainState(
        step=jnp.asarray(checkpoint.step, jnp.int32),
        opt_state=opt_state,
        **model,
    )
    if average is not None and (finished or fresh.ema is not None):
        state = _with_saved_average(state, average, path=checkpoint.path)
    elif average is not None:
        print("ema_decay is off now: the running average ends here")
    elif fresh.ema is not None and not finished:
        print("ema_decay is on now: the running average begins here")
        state = with_average(state)
    return state, record


def _with_saved_average(
    state: TrainState, average: Mapping[str, Any], *, path: Path
) -> TrainState:
    like = checkpoint_average(with_average(state))
    item = nested_to_tree(average, like=like, name=f"{path}/ema")
    item.pop("pooling_exponent")
    return replace(state, ema=item)


def refuse_lost_checkpoints(own: Resume, workdir: Path) -> None:
    """Refuse to begin at step 0 where a run has been further.

    One that was killed before its first checkpoint may: that one has an empty folder.

    Raises:
        InputError: the workdir has metrics, and checkpoints no more.
    """
    rows = read_metrics(workdir / METRICS_FILE) if jax.process_index() == 0 else []
    step = max((row["step"] for row in rows), default=0)
    # While the first checkpoint is written the run goes on, up to the second one.
    never = (workdir / CHECKPOINTS_FOLDER).is_dir() and step <= 2 * own.save_every
    if agree(int(step > 0 and not never and not own.start_anew)):
        raise InputError(
            f"{workdir} was trained to step {agree(step)}, and its checkpoints are "
            "gone; restore them, use another --workdir, or begin at step 0 with "
            "--config.start_anew=True"
        )


def _require_position(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint's step and its place in the data's stream agree."""
    config = checkpoint.meta["config"]
    samples = config.get("batch_size", 0) * config.get("gradient_accumulation_steps", 1)
    position = checkpoint.data["position"]
    if samples and position != checkpoint.step * samples:
        raise InputError(
            f"{checkpoint.path}: the name says step {checkpoint.step}, and the place "
            f"in the data is that of step {position / samples:g}; give the folder its "
            "own name again"
        )


def _require_classes(checkpoint: Checkpoint, fresh: TrainState) -> None:
    """Refuse another number of classes, also where other shapes are allowed."""
    found = checkpoint.model["params"]["classifier"]["bias"].size
    wanted = fresh.params["classifier"]["bias"].size
    if found != wanted:
        raise InputError(
            f"num_classes: {checkpoint.path} has a classifier of {found} classes, and "
            f"this run has {wanted}; restore its classes, or take its trunk for a new "
            "run: another --workdir, and --config.pretrained_backbone="
            f"{checkpoint.path.parent.parent}"
        )


def _compare_data(
    own: Resume, checkpoint: Checkpoint, num_images: int, data: DataRecord
) -> None:
    """Refuse other images than a run was started with, or say so where it is allowed.

    Checkpoints of older versions know the images' number and the classes' names only.
    """
    problems = []
    known = checkpoint.data["num_images"]
    if known != num_images:
        problems.append(
            f"data: {num_images} images found, the run was started with {known}; the "
            "samples' order would change"
        )
    names = checkpoint.meta.get("class_names", data.class_names)
    if list(names) != list(data.class_names):
        problems.append(
            f"data: the classes are {_first(data.class_names, names)}, the run was "
            f"started with {_first(names, data.class_names)}; what it learned would "
            "get other names"
        )
    digest = checkpoint.data.get("digest", data.digest)
    others = [name for name in data.digest if data.digest[name] != digest.get(name)]
    if others and not problems:
        problems.append(
            f"data: as many images as the run was started with, but with other "
            f"{', '.join(others)}"
        )
    if problems and not own.allow_config_change:
        raise InputError(
            "\n".join(problems) + "; restore the data, use another --workdir, or "
            "continue all the same with --config.allow_config_change=True"
        )
    print("".join(f"{problem}\n" for problem in problems), end="")


def _first(names: Sequence[str], others: Sequence[str]) -> str:
    """The first names of a list from where it is another than the other one on."""
    pairs = enumerate(zip(names, others, strict=False))
    same = next((i for i, (name, other) in pairs if name != other), 0)
    shown = [repr(name) for name in names[same : same + LISTED_NAMES]]
    return ("… " if same else "") + (", ".join(shown) or "none")


def _chosen(own: Resume, workdir: Path) -> Found:
    """What all hosts go on from.

    The first one chooses, and sets damaged ones aside before the others look.
    """
    if jax.process_index() == 0:
        found = _newest_sound(own, workdir)
        agree(found[0].step)
        return found
    checkpoint = load_checkpoint(workdir, step=agree(-1))
    return checkpoint, load_optimizer_arrays(checkpoint), load_average(checkpoint)


def _newest_sound(own: Resume, workdir: Path) -> Found:
    """The newest checkpoint (or the step to resume) that is as it was saved.

    Damaged ones after it are set aside, and that is said aloud.
    """
    folder = workdir / CHECKPOINTS_FOLDER
    damaged: list[DamagedCheckpointError] = []
    steps = [own.step]
    if steps == [None]:
        steps = checkpoint_steps(folder)[::-1]
    for step in steps:
        try:
            checkpoint = load_checkpoint(workdir, step=step)
            optimizer = load_optimizer_arrays(checkpoint)
            average = load_average(checkpoint)
        except DamagedCheckpointError as error:
            damaged.append(error)
            continue
        for error, bad_step in zip(damaged, steps, strict=False):
            print(f"WARNING: {error}")
            if not own.dry_run:
                print(f"it is now {set_aside(folder / str(bad_step))}")
        if damaged:
            print(f"WARNING: falling back to step {step}: later ones are damaged")
        return checkpoint, optimizer, average
    listed = "\n".join(map(str, damaged))
    if own.step is not None:
        raise InputError(f"resume_step = {steps[0]} cannot be resumed from: {listed}")
    raise InputError(
        f"{workdir}: every checkpoint is damaged (steps {steps}), and the run is not "
        "started anew over them; restore one from a copy, or choose another "
        f"--workdir\n{listed}"
    )
