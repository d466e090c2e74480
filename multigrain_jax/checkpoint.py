"""Checkpoints on disk: the one file that knows Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>/` with the items `model`
(parameters, batch statistics, pooling exponent, whitening), `optimizer` (absent in
converted checkpoints), `data` (where the data stream stands) and `meta` (how to build
the model, the run's config, and the digest of every leaf). Orbax does not notice a
flipped bit in array data, hence the digests: they are verified at every load.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from multigrain_jax.errors import InputError
from multigrain_jax.trees import (
    flatten_nested,
    json_digest,
    leaf_digests,
    nested_to_tree,
    tree_to_nested,
)

CHECKPOINTS_FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds, verified.

    Attributes:
        path: the step's folder.
        step: the number of optimiser updates behind it.
        model: nested dictionary of arrays (params, batch_stats, …).
        data: where the data stream stands (empty in converted checkpoints).
        meta: how to build the model, and the run's config.
    """

    path: Path
    step: int
    model: dict[str, Any]
    data: dict[str, Any]
    meta: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one workdir: writes them, lists them, deletes old ones."""

    def __init__(self, workdir: str | Path, *, keep_every_steps: int | None = None):
        """Open the store.

        Args:
            workdir: the run's folder; created if it is missing.
            keep_every_steps: besides the last checkpoint, those at multiples of this
                number are kept for good (None: only the last).
        """
        self.folder = Path(workdir).absolute() / CHECKPOINTS_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1, keep_period=keep_every_steps
            ),
        )

    def steps(self) -> list[int]:
        """The steps of which there is a complete checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        *,
        model: Any,
        optimizer: Any = None,
        data: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any],
    ) -> None:
        """Start to write one checkpoint; the disk work goes on in the background.

        Args:
            step: the number of optimiser updates behind the state.
            model: tree of arrays.
            optimizer: tree of arrays, or None for a checkpoint without one.
            data: where the data stream stands; a JSON object.
            meta: how to build the model, and the run's config; a JSON object.

        Raises:
            InputError: there is a checkpoint of this step already.
        """
        items: dict[str, Any] = {"model": tree_to_nested(model)}
        if optimizer is not None:
            items["optimizer"] = tree_to_nested(optimizer)
        data = dict(data or {})
        sealed = {
            "meta": dict(meta),
            "digests": {name: leaf_digests(item) for name, item in items.items()},
            "data_digest": json_digest(data),
        }
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        arguments["data"] = ocp.args.JsonSave(data)
        arguments["meta"] = ocp.args.JsonSave(
            {**sealed, "meta_digest": json_digest(sealed)}
        )
        if not self._manager.save(
            step, args=ocp.args.Composite(**arguments), force=True
        ):
            raise InputError(
                f"checkpoint of step {step} was not written: {self.folder} already "
                "has one; delete it or choose another workdir"
            )

    def wait(self) -> None:
        """Wait until everything is on disk; errors of background saves surface here."""
        self._manager.wait_until_finished()

    def delete_after(self, step: int) -> list[int]:
        """Delete the checkpoints later than `step`; returns their steps."""
        later = [s for s in self.steps() if s > step]
        for s in later:
            self._manager.delete(s)
        return later

    def close(self) -> None:
        """Wait for background saves and release the store."""
        self._manager.wait_until_finished()
        self._manager.close()


def require_no_checkpoints(workdir: Path) -> None:
    """Refuse a workdir that holds a result already.

    Raises:
        InputError: there are checkpoints.
    """
    if (workdir / CHECKPOINTS_FOLDER).exists() or (workdir / "model").exists():
        raise InputError(
            f"{workdir}: an empty or new folder was expected, found checkpoints; "
            "choose another one, or delete them"
        )


def save_derived(
    workdir: Path,
    source: Checkpoint,
    *,
    model: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Write a checkpoint made from another one: of the same step, without optimiser.

    Args:
        workdir: a folder without checkpoints.
        source: the checkpoint it was made from.
        model: the new `model` item.
        config: how it was made; a JSON object.
    """
    store = CheckpointStore(workdir)
    meta = {**source.meta, "config": dict(config), "made_from": str(source.path)}
    store.save(source.step, model=model, meta=meta)
    store.close()


def find_checkpoint(path: str | Path, *, step: int | None = None) -> Path:
    """The step folder that `path` means: a step folder itself, or a workdir's newest.

    Args:
        path: a workdir (with `checkpoints/<step>` inside) or a step folder.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: there is no such checkpoint; the message lists what there is.
    """
    path = Path(path).absolute()
    if (path / "model").is_dir():
        if step is not None and path.name != str(step):
            raise InputError(
                f"checkpoint {path}: this is one step's folder, but step {step} was "
                "asked for; give the workdir, or leave the step out"
            )
        return path
    folder = path / CHECKPOINTS_FOLDER if path.name != CHECKPOINTS_FOLDER else path
    # An unfinished save has a longer name (N.orbax-checkpoint-tmp) and never counts.
    steps = (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())
        if folder.is_dir()
        else []
    )
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"step {step}"
        raise InputError(
            f"checkpoint: {wanted} was expected in {path}, found "
            f"{f'steps {steps}' if steps else 'none'}; give a workdir that holds "
            "checkpoints/<step>, or such a step folder"
        )
    return folder / str(steps[-1] if step is None else step)


def load_checkpoint(path: str | Path, *, step: int | None = None) -> Checkpoint:
    """Read and verify one checkpoint's model, data position and meta.

    Args:
        path: a workdir or a step folder.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: nothing there, or a leaf whose digest is not the stored one.
    """
    folder = find_checkpoint(path, step=step)
    sealed = _read_json(folder, "meta")
    digest = sealed.pop("meta_digest", None)
    if digest != json_digest(sealed):
        raise _damaged(folder, ["meta: its digest does not match"])
    data = _read_json(folder, "data")
    if json_digest(data) != sealed["data_digest"]:
        raise _damaged(folder, ["data: its digest does not match"])
    model = _read_arrays(folder, "model", sealed["digests"]["model"])
    return Checkpoint(folder, int(folder.name), model, data, sealed["meta"])


def load_optimizer(checkpoint: Checkpoint, *, like: Any) -> Any:
    """Read and verify a checkpoint's optimiser state, as a tree like `like`.

    Args:
        checkpoint: the checkpoint.
        like: a tree of arrays (or of shapes and dtypes) with the expected structure.

    Raises:
        InputError: no optimiser state (a converted checkpoint), damage, or another
            structure than `like`.
    """
    if not (checkpoint.path / "optimizer").is_dir():
        raise InputError(
            f"checkpoint {checkpoint.path}: an optimiser state was expected, found "
            "none (a converted checkpoint has none); start from it with init_from"
        )
    digests = _read_json(checkpoint.path, "meta")["digests"]["optimizer"]
    nested = _read_arrays(checkpoint.path, "optimizer", digests)
    return nested_to_tree(nested, like=like, name=f"{checkpoint.path}/optimizer")


class Leaf(NamedTuple):
    """One array of a checkpoint: where it is, what it is, and its digest."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    digest: str


class Description(NamedTuple):
    """A verified checkpoint's leaves, the digest of them all, and its meta."""

    path: Path
    leaves: list[Leaf]
    digest: str
    meta: dict[str, Any]


def describe_checkpoint(path: str | Path, *, step: int | None = None) -> Description:
    """Read and verify every item of a checkpoint and list its leaves.

    Args:
        path: a workdir or a step folder.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: nothing there, or damage.
    """
    checkpoint = load_checkpoint(path, step=step)
    items = {"model": checkpoint.model}
    digests = _read_json(checkpoint.path, "meta")["digests"]
    if "optimizer" in digests:
        items["optimizer"] = _read_arrays(
            checkpoint.path, "optimizer", digests["optimizer"]
        )
    leaves = [
        Leaf(f"{item}.{key}", str(leaf.dtype), leaf.shape, leaf.nbytes, digest)
        for item, nested in items.items()
        for (key, leaf), digest in zip(
            flatten_nested(nested).items(), leaf_digests(nested).values(), strict=True
        )
    ]
    everything = json_digest({leaf.path: leaf.digest for leaf in leaves})
    return Description(checkpoint.path, leaves, everything, checkpoint.meta)


def _read_json(folder: Path, item: str) -> dict[str, Any]:
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return dict(reader.restore(folder / item))
    except Exception as error:
        raise _damaged(folder, [f"{item}: {error}"]) from error


def _read_arrays(folder: Path, item: str, digests: Mapping[str, str]) -> dict[str, Any]:
    try:
        with ocp.StandardCheckpointer() as reader:
            nested = reader.restore(folder / item)
    except Exception as error:
        raise _damaged(folder, [f"{item}: {error}"]) from error
    found = leaf_digests(nested)
    problems = [f"{item}: {key} is missing" for key in digests.keys() - found.keys()]
    problems += [f"{item}: {key} is unknown" for key in found.keys() - digests.keys()]
    problems += [
        f"{item}: {key} has another digest than when it was saved"
        for key in found.keys() & digests.keys()
        if found[key] != digests[key]
    ]
    if problems:
        raise _damaged(folder, sorted(problems))
    return nested


def _damaged(folder: Path, problems: list[str]) -> InputError:
    listed = "\n  ".join(problems)
    return InputError(
        f"checkpoint {folder} is damaged or incomplete and was not loaded; "
        f"use another step or a copy\n  {listed}"
    )
