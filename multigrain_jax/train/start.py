"""Where a run begins: its own checkpoint, another's, or from scratch."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from multigrain_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    CheckpointNotSavedError,
    CheckpointStore,
    DamagedCheckpointError,
    checkpoint_steps,
    load_checkpoint,
    load_optimizer,
    set_aside,
)
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.distributed import agree
from multigrain_jax.errors import InputError
from multigrain_jax.train.config_change import check_resumed_config
from multigrain_jax.train.state import TrainState, checkpoint_model
from multigrain_jax.trees import nested_to_tree, tree_to_nested
from multigrain_jax.weights import find_weights


class RunCheckpoints:
    """Writes the checkpoints of one run."""

    def __init__(
        self, store: CheckpointStore, *, meta: Mapping[str, Any], stream: RepeatedStream
    ):
        """Remember what every checkpoint of the run shares.

        Args:
            store: where they go.
            meta: how to build the model, and the config.
            stream: the data stream, whose position is saved.
        """
        self._store = store
        self._meta = meta
        self._stream = stream

    def save(self, state: TrainState, step: int) -> None:
        """Start to write the checkpoint of `step`; nothing if it is there already."""
        if step in self._store.steps():
            return
        self._store.save(
            step,
            model=checkpoint_model(state),
            optimizer=state.opt_state,
            data={
                "position": step * self._stream.batch_size,
                "num_images": self._stream.num_images,
            },
            meta=self._meta,
        )

    def newest(self) -> str:
        """Where the newest checkpoint is, in words; waits for a save under way."""
        with contextlib.suppress(CheckpointNotSavedError):
            self._store.wait()
        steps = self._store.steps()
        return str(self._store.folder / str(steps[-1])) if steps else "none yet"

    def longest_save(self) -> float:
        """Seconds that the longest save has taken."""
        return self._store.longest_save

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointNotSavedError: the newest state is not.
        """
        self._store.close()


@dataclass(frozen=True)
class Beginning:
    """Where a run is to begin, as its recipe has it.

    Attributes:
        backbone: the name of the network, which other checkpoints must share.
        init_from: a checkpoint, or the name of published weights, to fine-tune from
            epoch 0; None or empty: none.
        init_step: which step of `init_from`; None is the newest.
        pretrained_backbone: a checkpoint or name whose trunk is taken; None or empty:
            none.
        resume_step: which of the workdir's checkpoints to continue; None: the newest.
        allow_config_change: whether a resumed run may see other data or shapes.
        dry_run: nothing is written: damaged checkpoints stay where they are.
    """

    backbone: str
    init_from: str | None
    init_step: int | None
    pretrained_backbone: str | None
    resume_step: int | None
    allow_config_change: bool
    dry_run: bool


def start_state(
    beginning: Beginning,
    workdir: Path,
    *,
    fresh: TrainState,
    tx: optax.GradientTransformation,
    stream: RepeatedStream,
    record: Mapping[str, Any],
) -> TrainState:
    """The state to start from.

    In this order: the workdir's newest checkpoint (or `resume_step`); `init_from`, as
    a fine-tune from epoch 0 with a fresh optimiser; the trunk of
    `pretrained_backbone`; the given fresh state.

    Args:
        beginning: what the recipe says.
        workdir: the run's folder.
        fresh: a state with freshly initialised arrays.
        tx: the optimiser.
        stream: the data stream.
        record: the run's config, from `config_record`, to be compared with that of a
            checkpoint that is resumed.

    Raises:
        InputError: a checkpoint that does not fit, or a config that changed too much.
    """
    if agree(len(checkpoint_steps(workdir / CHECKPOINTS_FOLDER))):
        return _resume(beginning, workdir, fresh, stream, record)
    if beginning.resume_step is not None:
        raise InputError(
            f"resume_step = {beginning.resume_step}: {workdir} has no checkpoints; "
            "give the workdir of the run, or leave resume_step out"
        )
    if beginning.init_from:
        path = find_weights(beginning.init_from)
        checkpoint = load_checkpoint(path, step=beginning.init_step)
        return _fine_tune(checkpoint, beginning.backbone, fresh, tx)
    if beginning.pretrained_backbone:
        checkpoint = load_checkpoint(find_weights(beginning.pretrained_backbone))
        return _pretrained(checkpoint, beginning.backbone, fresh, tx)
    return fresh


def open_checkpoints(
    workdir: Path,
    *,
    first_step: int,
    keep_every_steps: int,
    meta: Mapping[str, Any],
    stream: RepeatedStream,
) -> RunCheckpoints | None:
    """Where a run's checkpoints go.

    Of several hosts the first one writes: the state is the same on all, and the others
    have None.

    Args:
        workdir: the run's folder.
        first_step: where the run begins; checkpoints of later steps are deleted.
        keep_every_steps: those of its multiples are kept for good.
        meta: how to build the model, and the config.
        stream: the data stream, whose position is saved.
    """
    if jax.process_index() > 0:
        return None
    store = CheckpointStore(workdir, keep_every_steps=keep_every_steps)
    for step in store.delete_after(first_step):
        print(f"checkpoint of step {step} deleted: the run restarts before it")
    return RunCheckpoints(store, meta=meta, stream=stream)


def _resume(
    beginning: Beginning,
    workdir: Path,
    fresh: TrainState,
    stream: RepeatedStream,
    record: Mapping[str, Any],
) -> TrainState:
    # The first host chooses, and sets damaged ones aside before the others look.
    chosen = -1
    if jax.process_index() == 0:
        checkpoint, opt_state = _newest_sound(beginning, workdir, fresh)
        chosen = checkpoint.step
    chosen = agree(chosen)
    if jax.process_index() > 0:
        checkpoint = load_checkpoint(workdir, step=chosen)
        opt_state = load_optimizer(checkpoint, like=fresh.opt_state)
    changes = check_resumed_config(
        checkpoint.meta["config"], record, allowed=beginning.allow_config_change
    )
    for line in changes:
        print(f"config changed: {line}")
    if checkpoint.data["num_images"] != stream.num_images:
        message = (
            f"data: {stream.num_images} images found, the run was started with "
            f"{checkpoint.data['num_images']}; the samples' order would change"
        )
        if not beginning.allow_config_change:
            raise InputError(
                f"{message}; restore the data, use another --workdir, or continue all "
                "the same with --config.allow_config_change=True"
            )
        print(message)
    print(f"resuming from {checkpoint.path}")
    model = nested_to_tree(
        checkpoint.model, like=checkpoint_model(fresh), name=f"{checkpoint.path}/model"
    )
    return TrainState(
        step=jnp.asarray(checkpoint.step, jnp.int32),
        opt_state=opt_state,
        **model,
    )


def _newest_sound(
    beginning: Beginning, workdir: Path, fresh: TrainState
) -> tuple[Checkpoint, optax.OptState]:
    """The newest checkpoint (or `resume_step`) that is as it was saved.

    Damaged ones after it are set aside, and that is said aloud.
    """
    folder = workdir / CHECKPOINTS_FOLDER
    damaged: list[DamagedCheckpointError] = []
    steps = [beginning.resume_step]
    if steps == [None]:
        steps = checkpoint_steps(folder)[::-1]
    for step in steps:
        try:
            checkpoint = load_checkpoint(workdir, step=step)
            opt_state = load_optimizer(checkpoint, like=fresh.opt_state)
        except DamagedCheckpointError as error:
            damaged.append(error)
            continue
        for error, bad_step in zip(damaged, steps, strict=False):
            print(f"WARNING: {error}")
            if not beginning.dry_run:
                print(f"it is now {set_aside(folder / str(bad_step))}")
        if damaged:
            print(f"WARNING: falling back to step {step}: later ones are damaged")
        return checkpoint, opt_state
    listed = "\n".join(map(str, damaged))
    if beginning.resume_step is not None:
        raise InputError(f"resume_step = {steps[0]} cannot be resumed from: {listed}")
    raise InputError(
        f"{workdir}: every checkpoint is damaged (steps {steps}), and the run is not "
        "started anew over them; restore one from a copy, or choose another "
        f"--workdir\n{listed}"
    )


def _fine_tune(
    checkpoint: Checkpoint,
    backbone: str,
    fresh: TrainState,
    tx: optax.GradientTransformation,
) -> TrainState:
    """All of another checkpoint but its optimiser and its p."""
    _require_backbone(checkpoint, backbone, key="init_from")
    found = checkpoint.meta["num_classes"]
    wanted = fresh.params["classifier"]["bias"].size
    if found != wanted:
        raise InputError(
            f"init_from: the classifier of {checkpoint.path} has {found} classes, and "
            f"the images have {wanted}; give it as pretrained_backbone, which takes "
            "the trunk and trains a fresh classifier"
        )
    if "whitening" in checkpoint.model:
        raise InputError(
            f"init_from: {checkpoint.path} is whitened, which training is not made "
            "for; give the checkpoint that it was made from"
        )
    nested = dict(checkpoint.model)
    # The recipe's p counts: it is a constant of joint training.
    nested["pooling_exponent"] = np.asarray(fresh.pooling_exponent)
    # A zoo checkpoint was trained without a margin.
    nested["params"] = {
        "margin": {"beta": np.asarray(fresh.params["margin"]["beta"])},
        **nested["params"],
    }
    print(f"starting from {checkpoint.path}, step {checkpoint.step}, at epoch 0")
    model = nested_to_tree(
        nested, like=checkpoint_model(fresh), name=f"{checkpoint.path}/model"
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32), opt_state=tx.init(model["params"]), **model
    )


def _pretrained(
    checkpoint: Checkpoint,
    backbone: str,
    fresh: TrainState,
    tx: optax.GradientTransformation,
) -> TrainState:
    """The trunk of another checkpoint; its classifier too, if the classes match."""
    _require_backbone(checkpoint, backbone, key="pretrained_backbone")
    start = checkpoint_model(fresh)
    params = {**start["params"], "trunk": checkpoint.model["params"]["trunk"]}
    classifier = checkpoint.model["params"].get("classifier")
    expected = start["params"]["classifier"]["kernel"].shape
    if classifier is not None and classifier["kernel"].shape == expected:
        params["classifier"] = classifier
        print(f"trunk and classifier from {checkpoint.path}")
    else:
        found = 0 if classifier is None else classifier["kernel"].shape[1]
        print(
            f"trunk from {checkpoint.path}; its classifier has {found} classes and "
            f"{expected[1]} are wanted: a fresh one is trained"
        )
    model = nested_to_tree(
        tree_to_nested({**start, "params": params})
        | {"batch_stats": checkpoint.model["batch_stats"]},
        like=start,
        name=f"{checkpoint.path}/model",
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32), opt_state=tx.init(model["params"]), **model
    )


def _require_backbone(checkpoint: Checkpoint, backbone: str, *, key: str) -> None:
    found = checkpoint.meta["backbone"]
    if found != backbone:
        raise InputError(
            f"{key}: {checkpoint.path} is a {found}, and backbone is {backbone!r}; "
            f"give --config.backbone={found}, or another checkpoint"
        )
