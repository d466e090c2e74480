"""Where faults are tried: photos, a model, a database, and tasks that read them."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure.commands import TRAINING, command_line, write_photos
from measure.forking import Commands

SITE = Path(__file__).parent / "failing_reads"
# Each takes seconds: what takes as long hangs.
HANGS_S = 120.0
SMALL = {"test_size": 48, "batch_size": 8}
# task -> recipe, settings; STAGE stands for the folder.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "train": (
        "base",
        {**TRAINING, "num_workers": 0, "num_epochs": 2, "epoch_len_factor": 2.0}
        | {"data.root": "STAGE/photos"},
    ),
    "embed": (
        "embed",
        {**SMALL, "init_from": "STAGE/model", "data.root": "STAGE/photos/train"}
        | {"rows_per_shard": 8},
    ),
    "search": (
        "search",
        {"database": "STAGE/database", "queries": "STAGE/photos/val/class0"},
    ),
    "near_duplicates": (
        "near_duplicates",
        {"database": "STAGE/database", "threshold": 0.999},
    ),
    "whiten": (
        "whiten",
        {**SMALL, "init_from": "STAGE/model", "data.root": "STAGE/photos"}
        | {"data.source": "folder", "data.split": "train", "eigenvalue_floor": 1e-3},
    ),
    "finetune_pooling": (
        "finetune_p",
        {**SMALL, "init_from": "STAGE/model", "data.root": "STAGE/photos"}
        | {"data.source": "folder"},
    ),
    "sweep_pooling": (
        "sweep_p",
        {"batch_size": 8, "init_from": "STAGE/model", "data.root": "STAGE/photos"}
        | {
            "data.source": "folder",
            "test_sizes": "(48,)",
            "pooling_exponent": "(1.0,)",
        },
    ),
    "eval_classification": (
        "eval_base",
        {**SMALL, "init_from": "STAGE/model", "data.root": "STAGE/photos"}
        | {"data.source": "folder", "data.split": "val"},
    ),
    "eval_retrieval": (
        "eval_retrieval:folder",
        {**SMALL, "init_from": "STAGE/model", "data.root": "STAGE/photos/val"},
    ),
}
# Reads no photos with a limit of time, and with no processes.
WITHOUT_READING = ("near_duplicates",)


class Stage:
    """A folder that every fault finds as it was, and the commands that are run in it.

    `photos`, `model` (of `train`) and `database` (of `embed`); `done/TASK` is what the
    undisturbed task has left.
    """

    def __init__(self, base: Path, clone: Path, *, logs: Path | None):
        """Start what runs the commands of a clone; nothing is built yet."""
        self.folder, self._pristine = base / "stage", base / "pristine"
        self.logs = logs or base / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._commands = Commands(clone, list(TASKS), compiled=base / "compiled")
        self._undisturbed: dict[str, tuple[dict[str, Any], set[str]]] = {}
        self._number = 0

    def build(self, tasks: Sequence[str]) -> None:
        """Make the photos, the model and the database, and run every task once."""
        photos = self.folder / "photos"
        write_photos(photos / "train", 21, side=64)
        write_photos(photos / "val", 9, side=64, seed=1)
        shutil.copy(photos / "train/class0/0.jpg", photos / "train/class0/copy.jpg")
        shutil.copy(photos / "val/class0/0.jpg", photos / "val/class0/copy.jpg")
        for task, place in (("train", "model"), ("embed", "database")):
            self._must_end_well(task, self.folder / place)
        for task in tasks:
            trial = self._must_end_well(task, self.done(task))
            results = results_of(self.done(task))
            self._undisturbed[task] = results, kinds_of_lines(trial.said)
        shutil.copytree(self.folder, self._pristine)

    def _must_end_well(self, task: str, workdir: Path) -> "Trial":
        trial = self.start(task, workdir)
        if trial.wait() != 0:
            raise SystemExit(f"{task} does not work undisturbed:\n{trial.said}")
        return trial

    def reset(self) -> None:
        """Undo everything that a fault has done to the folder."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._pristine, self.folder)

    def close(self) -> None:
        """End what runs the commands."""
        self._commands.close()

    def done(self, task: str) -> Path:
        """The workdir that the undisturbed task has left."""
        return self.folder / "done" / task

    def fresh(self, task: str) -> Path:
        """A workdir that is not there yet."""
        return self.folder / "fresh" / task

    def start(
        self,
        task: str,
        workdir: Path,
        *,
        failing_reads: bool = False,
        **settings: object,
    ) -> "Trial":
        """Start a task's command."""
        recipe, usual = TASKS[task]
        given = {
            key: str(value).replace("STAGE", str(self.folder))
            for key, value in {**usual, **settings}.items()
        }
        self._number += 1
        return Trial(
            self._commands,
            command_line(recipe, workdir, given),
            self.logs / f"{self._number}-{task}",
            failing_reads=self.folder / "photos" if failing_reads else None,
        )

    def judge(self, task: str, trial: "Trial", workdir: Path) -> str:
        """How a command has ended, in words; those of what must not be are capitals."""
        if trial.code is None:
            return "HUNG"
        results, lines = self._undisturbed[task]
        found = f"{trial.code}"
        if trial.code == 0:
            same = results_of(workdir) == results
            more = kinds_of_lines(trial.said) - lines
            if same:
                found += ", told" if more else ", as without"
            else:
                found += ", told" if more else ", SILENT"
        elif trial.code > 0:
            # What is wrong with a checkpoint is a list, an indented line each.
            number = len(re.findall(r"^\S", trial.errors, re.MULTILINE))
            found += ", one line" if number == 1 else f", {number} LINES"
        if "Traceback" in trial.said + trial.errors:
            found += ", TRACEBACK"
        return found + trial.left_behind()


class Trial:
    """A command that runs, or has ended."""

    def __init__(
        self,
        commands: Commands,
        words: Sequence[str],
        log: Path,
        *,
        failing_reads: Path | None,
    ):
        """Start it; reads below a folder may fail."""
        self._commands = commands
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        self.process = commands.start(
            words,
            stdout=self._out,
            stderr=self._err,
            variables={"FAILING_READS": str(failing_reads or "")},
            site=SITE if failing_reads else None,
        )
        self.code: int | None = None

    def wait(self, timeout_s: float = HANGS_S) -> int | None:
        """The exit code; a command that hangs is killed, and has none."""
        self.code = self._commands.wait(self.process, timeout_s)
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
            self._commands.wait(self.process, timeout_s)
        return self.code

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._out.read_text("utf-8", "replace") if self._out.exists() else ""

    @property
    def errors(self) -> str:
        """What it has printed as errors."""
        return self._err.read_text("utf-8", "replace") if self._err.exists() else ""

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self.code is None:
            self.code = self._commands.poll(self.process)
        return self.code is None

    def members(self) -> dict[int, str]:
        """The processes of its session that run, with their command lines."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process and fields[0] != "Z":
                    words = (path.parent / "cmdline").read_text()
                    found[int(path.parent.name)] = words.replace("\0", " ")
        return found

    def left_behind(self) -> str:
        """The processes that are left of it after a minute, which are ended."""
        # On busy cores: those that had just been started import all they need first.
        end = time.monotonic() + 60
        while self.members() and time.monotonic() < end:
            time.sleep(0.1)
        left = ""
        for process in self.members():
            left = ", PROCESSES LEFT"
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return left


def results_of(workdir: Path) -> dict[str, Any]:
    """results.json without the times."""
    with contextlib.suppress(OSError, ValueError):
        results = json.loads((workdir / "results.json").read_text())
        return {k: v for k, v in results.items() if "second" not in k}
    return {}


def kinds_of_lines(text: str) -> set[str]:
    """The lines of an output, without what differs from run to run."""
    lines = [re.sub(r"[\d.]+(e-?\d+)?", "#", line) for line in text.splitlines()]
    return {re.sub(r"/\S+", "/…", line) for line in lines}
