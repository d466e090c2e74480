"""What a run says first and last: what it does and where, what to look at and try."""

import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from multigrain_jax.progress import be_quiet
from multigrain_jax.terminal import WarningsAlone, saying_when_unread, telling
from multigrain_jax.workdir import RESULTS_FILE

PAGE = "report.html"
# Files have a coarser clock.
SECONDS_OF_FILES = 0.1
# task -> commands, in which WORKDIR and DATABASE are put.
NEXT = {
    "train": (
        "multigrain embed PHOTOS --init-from WORKDIR",
        "multigrain predict PHOTOS --init-from WORKDIR",
    ),
    "finetune_pooling": ("multigrain embed PHOTOS --init-from WORKDIR",),
    "whiten": ("multigrain embed PHOTOS --init-from WORKDIR",),
    "embed": (
        "multigrain search PHOTO WORKDIR",
        "multigrain duplicates WORKDIR",
        "multigrain browse WORKDIR",
    ),
    "search": ("multigrain browse DATABASE",),
    "near_duplicates": ("multigrain browse DATABASE",),
    "health": ("multigrain browse DATABASE",),
    "predict": ("multigrain embed PHOTOS --init-from CHECKPOINT",),
    "eval_classification": ("multigrain predict PHOTOS --init-from CHECKPOINT",),
    "eval_retrieval": ("multigrain embed PHOTOS --init-from CHECKPOINT",),
}
# Of a folder of photos, which is no collection to look through.
NEXT_OF_PHOTOS = ("multigrain embed DATABASE --init-from CHECKPOINT",)


def run_announced(
    run: Callable[[ConfigDict, Any], dict[str, float]],
    config: ConfigDict,
    workdir: Path | str,
    *,
    what: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a task, with as much to read as is asked for.

    Args:
        run: the task.
        config: its configuration.
        workdir: where its results go, a folder or an address in a bucket.
        what: what the task does, in a sentence.
        quiet: print warnings and errors alone.
        as_json: print the results as one object, and all else to standard error. Of a
            server that is its address, as soon as it listens.

    Raises:
        Exception: whatever the task raises.
    """
    began, usual, told = time.time(), sys.stdout, []

    def tell(name: str, value: str) -> None:
        text = json.dumps({name: value}) if as_json else value
        print(text, file=usual, flush=True)
        told.append(name)

    with contextlib.ExitStack() as stack:
        if quiet:
            be_quiet()
            stack.enter_context(contextlib.redirect_stdout(WarningsAlone(sys.stderr)))
        elif as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        hosts = config.get("distributed")
        is_alone = hosts is None or hosts.coordinator is None
        unread = f"nobody reads the output any more; the run goes on, in {workdir}"
        with saying_when_unread(unread), telling(tell):
            if is_alone:
                print(f"{config.task}: {what} Results go to {workdir}", flush=True)
            results = run(config, workdir)
        if not (is_alone or _is_first()):
            return
        if quiet and (count := results.get("num_unreadable")):
            # Each was told on the way, in a line that is no warning.
            print(f"WARNING: unreadable photos: {count:g}; skipped.txt says why")
        database = config.get("database")
        # A network that was trained without labels names nothing.
        scores = results or {}  # of a task in its place there may be none
        names = config.task != "train" or any(key.endswith("top1") for key in scores)
        lines = epilogue(
            config.task, workdir, database=database, since=began, names=names
        )
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
    if as_json and not told:
        print(json.dumps(_as_json(results), allow_nan=False), file=usual, flush=True)


def _is_first() -> bool:
    # Of several hosts; a run on one may have looked for no devices, and needs none.
    import jax

    return jax.process_index() == 0


def _as_json(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results of which JSON knows every number: what is none is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in results.items()
    }


def epilogue(
    task: str,
    workdir: Path | str,
    *,
    database: str | None,
    since: float,
    names: bool = True,
) -> list[str]:
    """The last lines of a run.

    Args:
        task: what it did.
        workdir: where its results are.
        database: the collection that it looked into, if it did.
        since: when it began, in seconds of the clock of files: an older page is not of
            this run.
        names: whether what was made can be asked for classes.
    """
    lines = []
    following = NEXT.get(task, ())
    # What is in a bucket is not looked at from here.
    if isinstance(workdir, Path):
        if _written_at(workdir / PAGE) >= since - SECONDS_OF_FILES:
            lines.append(f"see {_shown(workdir / PAGE)}")
        if task == "embed":
            workdir = _embedded_in(workdir, since)
    places = {"WORKDIR": _quoted(workdir)}
    if database is not None:
        places["DATABASE"] = _quoted(database)
        if task == "near_duplicates" and _is_photos(database):
            following = NEXT_OF_PHOTOS
    commands = []
    for command in following:
        words = [places.get(word) or word for word in command.split()]
        if "DATABASE" not in words and (names or "predict" not in words):
            commands.append(" ".join(words))
    for number, command in enumerate(commands):
        lines.append(f"{'next: ' if not number else '      '}{command}")
    return lines


def _written_at(file: Path) -> float:
    """When a file was written; -inf where there is none."""
    return file.stat().st_mtime if file.is_file() else -math.inf


def _embedded_in(workdir: Path, since: float) -> Path:
    """The workdir, or the one in it where descriptors made otherwise have gone."""
    found = [workdir / RESULTS_FILE, *workdir.glob(f"*/{RESULTS_FILE}")]
    newest = max(found, key=_written_at)
    is_own = _written_at(newest) >= since - SECONDS_OF_FILES
    return newest.parent if is_own else workdir


def _is_photos(database: str) -> bool:
    # It is there: a task has run, which has imported as much.
    from multigrain_jax.tasks.photo_duplicates import is_photo_folder

    return is_photo_folder(database)


def _quoted(path: Path | str) -> str:
    return shlex.quote(_shown(path))


def _shown(path: Path | str) -> str:
    """A path from here, if it is below."""
    text, here = str(path), os.getcwd()
    return os.path.relpath(text, here) if text.startswith(f"{here}{os.sep}") else text
