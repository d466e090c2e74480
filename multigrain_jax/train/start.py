"""Where a run begins: its own checkpoint, another's, or from scratch."""

import contextlib
from collections.abc import Mapping, Sequence
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
from multigrain_jax.models.multigrain import Variables
from multigrain_jax.train.config_change import check_resumed_config
from multigrain_jax.train.state import TrainState, checkpoint_model, create_state
from multigrain_jax.trees import nested_to_tree, tree_to_nested


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


def start_state(
    config: Mapping[str, Any],
    workdir: Path,
    *,
    variables: Variables,
    tx: optax.GradientTransformation,
    stream: RepeatedStream,
    num_classes: int,
    class_names: Sequence[str],
) -> tuple[TrainState, RunCheckpoints | None]:
    """The state to start from, and where checkpoints go.

    There are none in a dry run, and of several hosts the first one writes: the state
    is the same on all.

    In this order: the workdir's newest checkpoint (or `resume_step`); `init_from`, as
    a fine-tune from epoch 0 with a fresh optimiser; the trunk of
    `pretrained_backbone`; the given fresh arrays.

    Args:
        config: the configuration as nested dictionaries.
        workdir: the run's folder.
        variables: freshly initialised arrays of the model.
        tx: the optimiser.
        stream: the data stream.
        num_classes: size of the classifier.
        class_names: stored with the checkpoints, for reports.

    Raises:
        InputError: a checkpoint that does not fit, or a config that changed too much.
    """
    fresh = create_state(variables, tx, beta=config["beta_init"])
    if agree(len(checkpoint_steps(workdir / CHECKPOINTS_FOLDER))):
        state = _resume(config, workdir, fresh, stream)
    elif config["resume_step"] is not None:
        raise InputError(
            f"resume_step = {config['resume_step']}: {workdir} has no checkpoints; "
            "give the workdir of the run, or leave resume_step out"
        )
    elif config["init_from"]:
        state = _fine_tune(config, fresh, tx)
    elif config["pretrained_backbone"]:
        state = _pretrained(config, fresh, tx)
    else:
        state = fresh
    if config["dry_run"] or jax.process_index() > 0:
        return state, None
    store = CheckpointStore(
        workdir, keep_every_steps=config["keep_every_epochs"] * stream.steps_per_epoch
    )
    for step in store.delete_after(int(state.step)):
        print(f"checkpoint of step {step} deleted: the run restarts before it")
    meta = {
        "backbone": config["backbone"],
        "num_classes": num_classes,
        "class_names": list(class_names),
        "config": _json_ready(config),
    }
    return state, RunCheckpoints(store, meta=meta, stream=stream)


def _resume(
    config: Mapping[str, Any], workdir: Path, fresh: TrainState, stream: RepeatedStream
) -> TrainState:
    # The first host chooses, and sets damaged ones aside before the others look.
    chosen = -1
    if jax.process_index() == 0:
        checkpoint, opt_state = _newest_sound(config, workdir, fresh)
        chosen = checkpoint.step
    chosen = agree(chosen)
    if jax.process_index() > 0:
        checkpoint = load_checkpoint(workdir, step=chosen)
        opt_state = load_optimizer(checkpoint, like=fresh.opt_state)
    changes = check_resumed_config(checkpoint.meta["config"], _json_ready(config))
    for line in changes:
        print(f"config changed: {line}")
    if checkpoint.data["num_images"] != stream.num_images:
        message = (
            f"data: {stream.num_images} images found, the run was started with "
            f"{checkpoint.data['num_images']}; the samples' order would change"
        )
        if not config["allow_config_change"]:
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
    config: Mapping[str, Any], workdir: Path, fresh: TrainState
) -> tuple[Checkpoint, optax.OptState]:
    """The newest checkpoint (or `resume_step`) that is as it was saved.

    Damaged ones after it are set aside, and that is said aloud.
    """
    folder = workdir / CHECKPOINTS_FOLDER
    damaged: list[DamagedCheckpointError] = []
    steps = [config["resume_step"]]
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
            if not config["dry_run"]:
                print(f"it is now {set_aside(folder / str(bad_step))}")
        if damaged:
            print(f"WARNING: falling back to step {step}: later ones are damaged")
        return checkpoint, opt_state
    listed = "\n".join(map(str, damaged))
    if config["resume_step"] is not None:
        raise InputError(f"resume_step = {steps[0]} cannot be resumed from: {listed}")
    raise InputError(
        f"{workdir}: every checkpoint is damaged (steps {steps}), and the run is not "
        "started anew over them; restore one from a copy, or choose another "
        f"--workdir\n{listed}"
    )


def _fine_tune(
    config: Mapping[str, Any], fresh: TrainState, tx: optax.GradientTransformation
) -> TrainState:
    checkpoint = load_checkpoint(config["init_from"], step=config["init_step"])
    _require_backbone(checkpoint, config, key="init_from")
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
    config: Mapping[str, Any], fresh: TrainState, tx: optax.GradientTransformation
) -> TrainState:
    """The trunk of another checkpoint; its classifier too, if the classes match."""
    checkpoint = load_checkpoint(config["pretrained_backbone"])
    _require_backbone(checkpoint, config, key="pretrained_backbone")
    start = checkpoint_model(fresh)
    params = {**start["params"], "trunk": checkpoint.model["params"]["trunk"]}
    classifier = checkpoint.model["params"]["classifier"]
    found = classifier["kernel"].shape
    expected = start["params"]["classifier"]["kernel"].shape
    if found == expected:
        params["classifier"] = classifier
        print(f"trunk and classifier from {checkpoint.path}")
    else:
        print(
            f"trunk from {checkpoint.path}; its classifier has {found[1]} classes and "
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


def _require_backbone(
    checkpoint: Checkpoint, config: Mapping[str, Any], *, key: str
) -> None:
    found = checkpoint.meta["backbone"]
    if found != config["backbone"]:
        raise InputError(
            f"{key}: {checkpoint.path} is a {found}, and backbone is "
            f"{config['backbone']!r}; give --config.backbone={found}, or another "
            "checkpoint"
        )


def _json_ready(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _json_ready(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in config.items()
    }
