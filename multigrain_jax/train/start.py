"""Where a run begins: its own checkpoint, another's, or from scratch."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from multigrain_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    CheckpointNotSavedError,
    CheckpointStore,
    checkpoint_steps,
    load_checkpoint,
)
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.distributed import agree
from multigrain_jax.errors import InputError
from multigrain_jax.train.resume import (
    DataRecord,
    Resume,
    refuse_lost_checkpoints,
    resume_state,
)
from multigrain_jax.train.state import (
    TrainState,
    checkpoint_average,
    checkpoint_model,
    with_average,
)
from multigrain_jax.train.versions import current_versions
from multigrain_jax.trees import nested_to_tree, tree_to_nested
from multigrain_jax.weights import find_weights


class RunCheckpoints:
    """Writes the checkpoints of one run."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        meta: Mapping[str, Any],
        stream: RepeatedStream,
        digest: Mapping[str, str],
    ):
        """Remember what every checkpoint of the run shares.

        Args:
            store: where they go.
            meta: how to build the model, and the config.
            stream: the data stream, whose position is saved.
            digest: of the images.
        """
        self._store = store
        self._meta = meta
        self._stream = stream
        self._digest = digest

    def save(self, state: TrainState, step: int) -> None:
        """Start to write the checkpoint of `step`; nothing if it is there already."""
        if step in self._store.steps():
            return
        self._store.save(
            step,
            model=checkpoint_model(state),
            optimizer=state.opt_state,
            ema=checkpoint_average(state),
            data={
                "position": step * self._stream.batch_size,
                "num_images": self._stream.num_images,
                "digest": dict(self._digest),
                "versions": current_versions(),
            },
            meta=self._meta,
        )

    def try_again(self) -> None:
        """Start to write the newest checkpoint anew, if that has failed."""
        self._store.try_again()

    def apart(self, folder_name: str) -> "RunCheckpoints":
        """The checkpoints of the same run, in another folder of the workdir."""
        store = CheckpointStore(self._store.folder.parent, folder_name=folder_name)
        return RunCheckpoints(
            store, meta=self._meta, stream=self._stream, digest=self._digest
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
        init_raw: of either checkpoint the last weights, also where it has an average.
        pretrained_backbone: a checkpoint or name whose trunk is taken; None or empty:
            none.
        resume: how the workdir's own checkpoints are continued.
    """

    backbone: str
    init_from: str | None
    init_step: int | None
    init_raw: bool
    pretrained_backbone: str | None
    resume: Resume


class Started(NamedTuple):
    """Where a run begins.

    Attributes:
        state: the state.
        record: the config by which the run was or will be trained.
    """

    state: TrainState
    record: Mapping[str, Any]


def start_state(
    beginning: Beginning,
    workdir: Path,
    *,
    fresh: TrainState,
    tx: optax.GradientTransformation,
    stream: RepeatedStream,
    data: DataRecord,
    record: Mapping[str, Any],
    last_step: int,
) -> Started:
    """The state to start from.

    In this order: the workdir's newest checkpoint (or `resume_step`); `init_from`, as
    a fine-tune from epoch 0 with a fresh optimiser; the trunk of
    `pretrained_backbone`; the given fresh state.

    Args:
        beginning: what the recipe says.
        workdir: the run's folder.
        fresh: a state with freshly initialised arrays, and with a running average if
            the run is to keep one.
        tx: the optimiser.
        stream: the data stream.
        data: what the images are, to be compared with what a checkpoint that is resumed
            was trained on.
        record: the run's config, from `config_record`, to be compared likewise.
        last_step: where the run ends.

    Raises:
        InputError: a checkpoint that does not fit, checkpoints that are gone, or a
            config or data that changed too much.
    """
    own = beginning.resume
    if agree(len(checkpoint_steps(workdir / CHECKPOINTS_FOLDER))):
        if own.start_anew:
            print(f"start_anew is without effect: {workdir} has checkpoints")
        return Started(
            *resume_state(
                own,
                workdir,
                fresh=fresh,
                stream=stream,
                data=data,
                record=record,
                last_step=last_step,
            )
        )
    if own.step is not None:
        raise InputError(
            f"resume_step = {own.step}: {workdir} has no checkpoints; "
            "give the workdir of the run, or leave resume_step out"
        )
    refuse_lost_checkpoints(own, workdir)
    return Started(_beginning_state(beginning, fresh, tx), record)


def _beginning_state(
    beginning: Beginning, fresh: TrainState, tx: optax.GradientTransformation
) -> TrainState:
    """The state of step 0."""
    raw = beginning.init_raw
    if beginning.init_from:
        path = find_weights(beginning.init_from)
        checkpoint = load_checkpoint(path, step=beginning.init_step, raw=raw)
        state = _fine_tune(checkpoint, beginning.backbone, fresh, tx)
    elif beginning.pretrained_backbone:
        path = find_weights(beginning.pretrained_backbone)
        checkpoint = load_checkpoint(path, raw=raw)
        state = _pretrained(checkpoint, beginning.backbone, fresh, tx)
    else:
        return fresh
    if said := checkpoint.which_weights(raw=raw):
        print(f"of {checkpoint.path}: {said}")
    return state if fresh.ema is None else with_average(state)


def open_checkpoints(
    workdir: Path,
    *,
    first_step: int,
    keep_every_steps: int,
    meta: Mapping[str, Any],
    stream: RepeatedStream,
    digest: Mapping[str, str],
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
        digest: of the images, from `data_digest`.
    """
    if jax.process_index() > 0:
        return None
    store = CheckpointStore(workdir, keep_every_steps=keep_every_steps)
    for step in store.delete_after(first_step):
        print(f"checkpoint of step {step} deleted: the run restarts before it")
    return RunCheckpoints(store, meta=meta, stream=stream, digest=digest)


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
    own = ""
    if "margin" in checkpoint.model["params"]:
        beta = float(nested["params"]["margin"]["beta"])
        own = f", with its β of {beta:.4g} in beta_init's place"
    print(f"starting from {checkpoint.path}, step {checkpoint.step}, at epoch 0{own}")
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
