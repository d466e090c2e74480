"""Writes checkpoints."""

import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from multigrain_jax.checkpoint.loading import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    checkpoint_steps,
    reason_in_short,
    this_process_alone,
)
from multigrain_jax.errors import InputError
from multigrain_jax.trees import json_digest, leaf_digests, tree_to_nested

# If the newest one turns out to be damaged, there is the one before.
KEEP_LAST = 2
SAVE_ATTEMPTS = 2


class CheckpointNotSavedError(OSError):
    """The newest state of a run could not be stored."""


class CheckpointStore:
    """The checkpoints of one workdir: writes them in the background, deletes old ones.

    A save that fails is reported at once and tried once more. The next save goes ahead
    whatever became of the one before; `wait` and `close` raise if the newest failed.
    """

    def __init__(self, workdir: str | Path, *, keep_every_steps: int | None = None):
        """Open the store; what unfinished saves have left behind is removed.

        Args:
            workdir: the run's folder; created if it is missing.
            keep_every_steps: besides the last two checkpoints, those at multiples of
                this number are kept for good (None: only the last two).
        """
        self.folder = Path(workdir).absolute() / CHECKPOINTS_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        # One thread of its own writes: Orbax's background saves report an error only
        # when they are waited for.
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEEP_LAST,
                keep_period=keep_every_steps,
                create=False,
                enable_async_checkpointing=False,
                multiprocessing_options=this_process_alone(),
            ),
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._newest: Future[None] | None = None
        # How long the longest save has taken, from `save` to the disk.
        self.longest_save = 0.0

    def steps(self) -> list[int]:
        """The steps of which there is a complete checkpoint, ascending."""
        return checkpoint_steps(self.folder)

    def save(
        self,
        step: int,
        *,
        model: Any,
        optimizer: Any = None,
        data: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any],
    ) -> None:
        """Start to write one checkpoint; waits for the one before to be written.

        Args:
            step: the number of optimiser updates behind the state.
            model: tree of arrays; what is not of NumPy is copied before this returns.
            optimizer: tree of arrays, or None for a checkpoint without one.
            data: where the data stream stands; a JSON object.
            meta: how to build the model, and the run's config; a JSON object.

        Raises:
            InputError: there is a checkpoint of this step already.
        """
        if self._newest is not None:
            self._newest.exception()  # waits; a failure was reported when it happened
        if step in self.steps():
            raise InputError(
                f"checkpoint of step {step} was not written: {self.folder} already "
                "has one; delete it or choose another workdir"
            )
        items: dict[str, Any] = {"model": tree_to_nested(model)}
        if optimizer is not None:
            items["optimizer"] = tree_to_nested(optimizer)
        self._newest = self._thread.submit(
            self._write, step, items, dict(data or {}), dict(meta), time.perf_counter()
        )

    def _write(
        self,
        step: int,
        items: Mapping[str, Any],
        data: Mapping[str, Any],
        meta: Mapping[str, Any],
        started: float,
    ) -> None:
        sealed = {
            "meta": meta,
            "step": step,
            "digests": {name: leaf_digests(item) for name, item in items.items()},
            "data_digest": json_digest(data),
        }
        sealed["meta_digest"] = json_digest(sealed)
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        arguments["data"] = ocp.args.JsonSave(data)
        arguments["meta"] = ocp.args.JsonSave(sealed)
        for attempt in range(1, SAVE_ATTEMPTS + 1):
            try:
                self._manager.save(
                    step, args=ocp.args.Composite(**arguments), force=True
                )
                taken = time.perf_counter() - started
                self.longest_save = max(self.longest_save, taken)
                return
            except Exception as error:
                what = f"checkpoint of step {step} could not be stored in {self.folder}"
                last = attempt == SAVE_ATTEMPTS
                then = "given up" if last else "trying once more"
                why = reason_in_short(error, self.folder)
                print(f"WARNING: {what}: {why}\n  {then}", flush=True)
                self._remove_unfinished()
                if last:
                    raise CheckpointNotSavedError(
                        f"{what}: {why}; make room or mend the storage; the same "
                        "command goes on from the checkpoint before"
                    ) from error

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointNotSavedError: the newest state is not.
        """
        if self._newest is not None:
            self._newest.result()

    def delete_after(self, step: int) -> list[int]:
        """Delete the checkpoints later than `step`; returns their steps."""
        later = [s for s in self.steps() if s > step]
        for s in later:
            self._manager.delete(s)
        return later

    def close(self) -> None:
        """Wait until everything is on disk and release the store.

        Raises:
            CheckpointNotSavedError: the newest state is not.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
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
    record: Mapping[str, Any],
) -> None:
    """Write a checkpoint made from another one: of the same step, without optimiser.

    Args:
        workdir: a folder without checkpoints.
        source: the checkpoint it was made from.
        model: the new `model` item.
        record: the config that it was made by; a JSON object.
    """
    store = CheckpointStore(workdir)
    meta = {**source.meta, "config": dict(record), "made_from": str(source.path)}
    store.save(source.step, model=model, meta=meta)
    store.close()
