"""Writes checkpoints."""

import os
import shutil
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from multigrain_jax.checkpoint.loading import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    checkpoint_steps,
    reason_in_short,
    this_process_alone,
)
from multigrain_jax.errors import CheckpointNotSavedError, InputError
from multigrain_jax.growing_file import free_space
from multigrain_jax.trees import json_digest, leaf_digests, tree_to_nested

# If the newest one turns out to be damaged, there is the one before.
KEEP_LAST = 2
SAVE_ATTEMPTS = 2
# At the end of a run there is no later save: how long its last one is tried for, and
# how often. Machines that are taken back give about half a minute.
LAST_PATIENCE_S = 15.0
LAST_PAUSE_S = 1.0


class _Save(NamedTuple):
    """What a checkpoint is made from, kept until it is on disk."""

    step: int
    items: dict[str, Any]
    data: dict[str, Any]
    meta: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one workdir: writes them in the background, deletes old ones.

    A save that fails is reported at once and tried once more, then whenever
    `try_again` is called, until it succeeds or a later save takes its place. `wait`
    and `close` raise if the newest is not on disk.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep_every_steps: int | None = None,
        folder_name: str = CHECKPOINTS_FOLDER,
    ):
        """Open the store; what unfinished saves have left behind is removed.

        Args:
            workdir: the run's folder; created if it is missing.
            keep_every_steps: besides the last two checkpoints, those at multiples of
                this number are kept for good (None: only the last two).
            folder_name: of the checkpoints in the workdir.
        """
        self.folder = Path(workdir).absolute() / folder_name
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
        self._unsaved: _Save | None = None
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
        ema: Any = None,
        data: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any],
    ) -> None:
        """Start to write one checkpoint; waits for the one before to be written.

        Args:
            step: the number of optimiser updates behind the state.
            model: tree of arrays; what is not of NumPy is copied before this returns.
            optimizer: tree of arrays, or None for a checkpoint without one.
            ema: the model's running average, likewise.
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
        if ema is not None:
            items["ema"] = tree_to_nested(ema)
        self._unsaved = _Save(step, items, dict(data or {}), dict(meta))
        self._submit(self._unsaved)

    def try_again(self) -> None:
        """Start to write the newest checkpoint anew, if that has failed."""
        newest, unsaved = self._newest, self._unsaved
        if newest is not None and newest.done() and newest.exception() and unsaved:
            self._submit(unsaved, quiet=True)

    def _submit(self, save: _Save, *, quiet: bool = False) -> None:
        self._newest = self._thread.submit(
            self._write, save, quiet=quiet, started=time.perf_counter()
        )

    def _write(self, save: _Save, *, quiet: bool, started: float) -> None:
        step, items, data, meta = save
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
        what = f"checkpoint of step {step}"
        for attempt in range(1, SAVE_ATTEMPTS + 1):
            try:
                self._remove_unfinished()
                self._manager.save(
                    step, args=ocp.args.Composite(**arguments), force=True
                )
                taken = time.perf_counter() - started
                self.longest_save = max(self.longest_save, taken)
                self._unsaved = None
                if quiet or attempt > 1:
                    print(f"{what} is stored now", flush=True)
                return
            except Exception as error:
                last = attempt == SAVE_ATTEMPTS
                then = "it is tried again at every log" if last else "trying once more"
                why = f"{reason_in_short(error, self.folder)} "
                why += f"({free_space(self.folder)})"
                if not quiet:
                    print(
                        f"WARNING: {what} could not be stored in {self.folder}: {why}"
                        f"\n  {then}",
                        flush=True,
                    )
                if last:
                    raise CheckpointNotSavedError(
                        f"{what} could not be stored in {self.folder}: {why}; make "
                        "room or mend the storage; the same command goes on from "
                        f"{self._newest_in_words()}"
                    ) from error

    def _newest_in_words(self) -> str:
        steps = self.steps()
        return f"the checkpoint of step {steps[-1]}" if steps else "the start"

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

        A newest checkpoint that could not be written is tried again for a while.

        Raises:
            CheckpointNotSavedError: it is not on disk all the same.
        """
        end = time.monotonic() + LAST_PATIENCE_S
        try:
            while True:
                try:
                    self.wait()
                    break
                except CheckpointNotSavedError:
                    if time.monotonic() + LAST_PAUSE_S > end:
                        raise
                    time.sleep(LAST_PAUSE_S)
                    self.try_again()
        finally:
            self._thread.shutdown()
            self._manager.close()


def apart_folder() -> str:
    """The folder's name for what a run saves whose workdir another run has taken."""
    return f"{CHECKPOINTS_FOLDER}.{socket.gethostname()}-{os.getpid()}"


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
    folder_name: str = CHECKPOINTS_FOLDER,
) -> None:
    """Write a checkpoint made from another one: of the same step, without optimiser.

    Args:
        workdir: a folder without checkpoints.
        source: the checkpoint it was made from.
        model: the new `model` item.
        record: the config that it was made by; a JSON object.
        folder_name: of the checkpoints in the workdir.
    """
    store = CheckpointStore(workdir, folder_name=folder_name)
    meta = {**source.meta, "config": dict(record), "made_from": str(source.path)}
    store.save(source.step, model=model, meta=meta)
    store.close()
