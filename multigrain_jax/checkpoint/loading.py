"""Reads checkpoints, and verifies every leaf."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from multigrain_jax.checkpoint.in_bucket import CHECKPOINTS_FOLDER, on_this_machine
from multigrain_jax.checkpoint.storage import patiently, patiently_confirmed
from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.errors import CheckpointUnreadableError, InputError
from multigrain_jax.trees import (
    json_digest,
    leaf_digests,
    nested_to_tree,
)

# Orbax's files: the whole of an item of JSON, and the structure of one of arrays.
_JSON_FILE, _STRUCTURE_FILE = "metadata", "_METADATA"
MODEL, AVERAGE = "model", "ema"
_STEP = re.compile("0|[1-9][0-9]*")
_OTHER_DIGEST = "has another digest than when it was saved"
# What TensorStore puts before its settings, at the end of each of its errors.
_TENSORSTORE_SPEC = " [tensorstore_spec="
_REASON_LENGTH = 300


class DamagedCheckpointError(InputError):
    """A checkpoint that is not what was saved, or not whole: it was not loaded."""


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds, verified.

    Attributes:
        path: the step's folder.
        step: the number of optimiser updates behind it.
        model: nested dictionary of arrays (params, batch_stats, …): those of the last
            step, or their running average.
        data: where the data stream stands (empty in converted checkpoints).
        meta: how to build the model, and the run's config.
        digests: of every array, by item and dotted path.
        item: which one `model` was read from, "model" or "ema" (the average).
    """

    path: Path
    step: int
    model: dict[str, Any]
    data: dict[str, Any]
    meta: dict[str, Any]
    digests: dict[str, dict[str, str]]
    item: str = MODEL

    def which_weights(self, *, raw: bool) -> str:
        """What to say of the weights that were taken; empty if there was no choice.

        Args:
            raw: whether the last ones were asked for (`init_raw`).
        """
        if AVERAGE not in self.digests:
            return "its only weights (init_raw=True is without effect)" if raw else ""
        if self.item == AVERAGE:
            return "its running average (ema; init_raw=True takes the last weights)"
        return "its last weights (init_raw=False takes their running average, ema)"


def this_process_alone() -> ocp.options.MultiprocessingOptions:
    """For Orbax: wait for no other process, whatever the others do."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index,
        active_processes={index},
        barrier_sync_key_prefix=f"process{index}",
    )


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps with a finished checkpoint in a `checkpoints` folder, ascending.

    An unfinished save has a longer name (N.orbax-checkpoint-tmp) and does not count,
    and neither does one that was set aside.

    Raises:
        CheckpointUnreadableError: the storage does not answer.
    """
    try:
        names = patiently(lambda: os.listdir(folder), folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged step folder, so that it is not found any more.

    Returns:
        Its new path, `<step>.damaged`; an older folder of that name is deleted.
    """
    target = checkpoint.with_name(f"{checkpoint.name}.damaged")
    shutil.rmtree(target, ignore_errors=True)
    return checkpoint.rename(target)


def find_checkpoint(path: str | Path, *, step: int | None = None) -> Path:
    """The step folder that `path` means: a step folder itself, or a workdir's newest.

    Args:
        path: a workdir (with `checkpoints/<step>` inside) or a step folder; one in a
            bucket is copied to this machine first.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: there is no such checkpoint; the message lists what there is.
    """
    path = on_this_machine(os.path.expanduser(path), step=step).absolute()
    if path.is_file():
        raise InputError(
            f"checkpoint {path}: a workdir or step folder was expected, found a file; "
            "PyTorch's weights are converted by `multigrain convert`"
        )
    if (path / "model").is_dir():
        if step is not None and path.name != str(step):
            raise InputError(
                f"checkpoint {path}: this is one step's folder, but step {step} was "
                "asked for; give the workdir, or leave the step out"
            )
        return path
    folder = path / CHECKPOINTS_FOLDER if path.name != CHECKPOINTS_FOLDER else path
    steps = checkpoint_steps(folder)
    if not steps or (step is not None and step not in steps):
        wanted = "a checkpoint" if step is None else f"step {step}"
        raise InputError(
            f"checkpoint: {wanted} was expected in {path}, found "
            f"{f'steps {steps}' if steps else 'none'}; give a workdir that holds "
            "checkpoints/<step>, or such a step folder"
        )
    return folder / str(steps[-1] if step is None else step)


def load_checkpoint(
    path: str | Path, *, step: int | None = None, raw: bool = True
) -> Checkpoint:
    """Read and verify one checkpoint's model, data position and meta.

    Args:
        path: a workdir or a step folder.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step; False: their running average in their place,
            where the checkpoint has one.

    Raises:
        InputError: nothing there.
        DamagedCheckpointError: a digest is not the stored one, or a part is missing.
        CheckpointUnreadableError: the storage fails, for longer than a moment.
    """
    folder, sealed = _read_sealed(path, step=step)
    step = _step_of(folder, sealed)
    data = _read_json(folder, "data")
    if json_digest(data) != sealed["data_digest"]:
        raise _damaged(folder, [f"data: {_JSON_FILE} {_OTHER_DIGEST}"])
    digests = sealed["digests"]
    item = AVERAGE if AVERAGE in digests and not raw else MODEL
    return Checkpoint(
        path=folder,
        step=step,
        model=_read_arrays(folder, item, digests[item]),
        data=data,
        meta=sealed["meta"],
        digests=digests,
        item=item,
    )


def load_meta(path: str | Path, *, step: int | None = None) -> dict[str, Any]:
    """What `load_checkpoint` has as `meta`, without reading the arrays.

    Args and errors as of `load_checkpoint`.
    """
    return _read_sealed(path, step=step)[1]["meta"]


def _read_sealed(path: str | Path, *, step: int | None) -> tuple[Path, dict[str, Any]]:
    """The step folder that `path` means, and its record, which is what was sealed."""
    folder = patiently(lambda: find_checkpoint(path, step=step), as_path(path))
    sealed = _read_json(folder, "meta")
    digest = sealed.pop("meta_digest", None)
    if digest != json_digest(sealed):
        raise _damaged(folder, [f"meta: {_JSON_FILE} {_OTHER_DIGEST}"])
    return folder, sealed


def _step_of(folder: Path, sealed: Mapping[str, Any]) -> int:
    """The step that a checkpoint is of; a folder that is named by one must be so.

    Checkpoints of older versions know their step by the folder's name alone.
    """
    name = folder.name
    named = int(name) if _STEP.fullmatch(name) else None
    step = sealed.get("step", named)
    if step is None:
        raise InputError(
            f"checkpoint {folder}: a folder that is named by its step was expected, "
            f"such as checkpoints/100, found {name!r}; give it its own name again"
        )
    if named not in (None, step):
        raise InputError(
            f"checkpoint {folder}: the name says step {name}, and the checkpoint is of "
            f"step {step}; give the folder its own name again"
        )
    return step


def load_average(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Read and verify the running average beside a checkpoint's model, None if none.

    Raises:
        DamagedCheckpointError: it is not what was saved.
    """
    if AVERAGE not in checkpoint.digests:
        return None
    return _read_arrays(checkpoint.path, AVERAGE, checkpoint.digests[AVERAGE])


def load_optimizer(checkpoint: Checkpoint, *, like: Any) -> Any:
    """Read and verify a checkpoint's optimiser state, as a tree like `like`.

    Args:
        checkpoint: the checkpoint.
        like: a tree of arrays (or of shapes and dtypes) with the expected structure.

    Raises:
        InputError: no optimiser state (a converted checkpoint), damage, or another
            structure than `like`.
    """
    nested = load_optimizer_arrays(checkpoint)
    return nested_to_tree(nested, like=like, name=f"{checkpoint.path}/optimizer")


def load_optimizer_arrays(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read and verify a checkpoint's optimiser state, as nested dictionaries.

    Raises:
        InputError: no optimiser state (a converted checkpoint), or damage.
    """
    if "optimizer" not in checkpoint.digests:
        raise InputError(
            f"checkpoint {checkpoint.path}: an optimiser state was expected, found "
            "none (a converted checkpoint has none); start from it with init_from"
        )
    return _read_arrays(checkpoint.path, "optimizer", checkpoint.digests["optimizer"])


def _read_json(folder: Path, item: str) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        file = folder / item / _JSON_FILE
        if file.is_fifo():
            raise ValueError("a pipe, which has no end")
        with ocp.Checkpointer(
            ocp.JsonCheckpointHandler(multiprocessing_options=this_process_alone()),
            multiprocessing_options=this_process_alone(),
        ) as reader:
            return dict(reader.restore(folder / item))

    try:
        return patiently_confirmed(read, folder)
    except CheckpointUnreadableError:
        raise
    except Exception as error:
        problem = f"{item}: {_JSON_FILE}: {reason_in_short(error, folder)}"
        raise _damaged(folder, [problem]) from error


def _read_arrays(folder: Path, item: str, digests: Mapping[str, str]) -> dict[str, Any]:
    def read() -> Any:
        # The handler beneath the standard one, which opens each array twice: the first
        # time for its shape.
        with ocp.Checkpointer(
            ocp.BasePyTreeCheckpointHandler(
                multiprocessing_options=this_process_alone()
            ),
            multiprocessing_options=this_process_alone(),
        ) as reader:
            return reader.restore(folder / item)

    try:
        nested = patiently_confirmed(read, folder)
    except CheckpointUnreadableError:
        raise
    except Exception as error:
        reason = reason_in_short(error, folder)
        # TensorStore and the system name the file they could not read; what else can
        # fail is the interpretation of the one file that Orbax reads itself.
        if not isinstance(error, OSError) and _TENSORSTORE_SPEC not in str(error):
            reason = f"{_STRUCTURE_FILE}: {type(error).__name__}: {reason}"
        problem = f"{item}: {reason}"
        raise _damaged(folder, [problem]) from error
    found = leaf_digests(nested)
    problems = [f"{item}: {key} is missing" for key in digests.keys() - found.keys()]
    problems += [f"{item}: {key} is unknown" for key in found.keys() - digests.keys()]
    problems += [
        f"{item}: {key} {_OTHER_DIGEST}"
        for key in found.keys() & digests.keys()
        if found[key] != digests[key]
    ]
    if problems:
        raise _damaged(folder, sorted(problems))
    return nested


def reason_in_short(error: Exception, folder: Path) -> str:
    """What a library says of a checkpoint's files, in one line.

    Without TensorStore's settings, which are longer than the rest, with paths relative
    to `folder`, and with at most `_REASON_LENGTH` characters: the place comes first.
    """
    reason = str(error).partition(_TENSORSTORE_SPEC)[0]
    for place in (os.fspath(folder), str(folder)):
        reason = reason.replace(f"{place}/", "")
    reason = " ".join(reason.split())
    if len(reason) > _REASON_LENGTH:
        reason = f"{reason[: _REASON_LENGTH - 1]}…"
    return reason


def _damaged(folder: Path, problems: list[str]) -> DamagedCheckpointError:
    listed = "\n  ".join(problems)
    return DamagedCheckpointError(
        f"checkpoint {folder} is damaged or incomplete and was not loaded; "
        f"use another step or a copy\n  {listed}"
    )
