"""What every task does first: paths made plain, and a workdir that is its own."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from multigrain_jax import buckets
from multigrain_jax.checkpoint import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    apart_folder,
    save_derived,
)
from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.data.bucket_tree import forget
from multigrain_jax.data.sources.folder import split_folders
from multigrain_jax.descriptors.approximate.record import INDEX_FOLDER, RECORD_FILE
from multigrain_jax.descriptors.folder import DESCRIPTOR_FOLDER, HEAD_FILE
from multigrain_jax.distributed import (
    all_done,
    own_folder,
    quiet_unless_first,
    start_hosts,
)
from multigrain_jax.errors import InputError, TakenOver
from multigrain_jax.files import read_json
from multigrain_jax.growing_file import close_lists
from multigrain_jax.lock import WorkdirLock, lock_workdir
from multigrain_jax.runtime import look_for_devices
from multigrain_jax.tasks.bounds import leaves, number_problems
from multigrain_jax.tasks.check import refuse
from multigrain_jax.tasks.embed_record import SOURCES_OF_FILES
from multigrain_jax.workdir import CONFIG_FILE

# Keys that hold a path, of this machine or of a bucket. (`init_from` and
# `pretrained_backbone` may be the name of published weights, which is no path that
# begins with ~.)
PATH_KEYS = (
    "data.distractor_list",
    "data.distractors",
    "data.ground_truth",
    "data.list_file",
    "data.local_cache_dir",
    "data.query_list",
    "data.reference_list",
    "data.root",
    "data.rotations",
    "data.training",
    "database",
    "index",
    "init_from",
    "pretrained_backbone",
    "queries",
    "reference",
    "score_normalization.training",
)
# Of these the path has to be one of this machine.
LOCAL_KEYS = ("data.local_cache_dir", "index")
# Of these every file below is looked at: a workdir in them would become photos.
PHOTO_KEYS = ("data.distractors", "data.root", "data.training", "queries")
# What tasks leave -> the tasks that do.
MARKS = {
    CHECKPOINTS_FOLDER: ("train", "finetune_pooling", "whiten"),
    f"{DESCRIPTOR_FOLDER}/{HEAD_FILE}": ("embed",),
    f"{INDEX_FOLDER}/{RECORD_FILE}": ("index",),
    HEAD_FILE: (),
    RECORD_FILE: (),
    "model": (),
}


def prepare(config: ConfigDict, workdir: Path) -> ConfigDict:
    """A copy of a task's configuration, its paths without ~, for a workdir of its own.

    Nothing is written.

    Raises:
        InputError: numbers of hosts that cannot be; a workdir that is no folder to
            write to, or that belongs to the data, to what the task reads, or to another
            task.
    """
    forget()  # what an earlier task has listed of buckets
    copy = config.copy_and_resolve_references()
    for key in PATH_KEYS:
        *outer, name = key.split(".")
        part: Any = copy
        for inner in outer:
            part = part.get(inner, ConfigDict())
        if isinstance(part.get(name), str):
            part[name] = _expanded(key, part[name])
    settings = copy.to_dict()
    # The hosts find each other before the other keys are looked at.
    hosts = {"task": settings["task"], "distributed": settings.get("distributed", {})}
    refuse(
        number_problems(hosts)
        or _unwritable(workdir)
        or [*_places_of_others(settings, workdir), *_other_task(settings, workdir)]
    )
    return copy


def _expanded(key: str, path: str) -> str:
    """A path without ~, or the address of a bucket with its two slashes."""
    try:
        if key in LOCAL_KEYS:
            local_path(path, what=key)
        return buckets.expand(path)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(key) else f"{key}: {text}") from error


# A task: its configuration and its workdir, to what results.json holds.
Task = Callable[[ConfigDict, Path], dict[str, float]]


def one_writer(
    run: Task, *, needs_devices: Callable[[ConfigDict], bool] = lambda config: True
) -> Task:
    """The task, prepared, and with the lock of its workdir while it runs.

    In this order: a workdir that is refused stays as it is, without a lock file. Of
    several hosts each has a folder and a lock of its own, process 0 the workdir itself.

    Args:
        run: the task.
        needs_devices: whether the configuration does; then they are looked for first.
    """

    @functools.wraps(run)
    def prepared(config: ConfigDict, workdir: Path) -> dict[str, float]:
        config = prepare(config, workdir)
        shared = "distributed" in config
        if shared:
            start_hosts(**config.distributed.to_dict())
        with contextlib.ExitStack() as stack:
            if shared or needs_devices(config):
                look_for_devices()
                _require_one_host(config, shared=shared)
                lock = stack.enter_context(lock_workdir(own_folder(workdir)))
                stack.enter_context(quiet_unless_first())
                stack.enter_context(all_done())
            else:
                lock = stack.enter_context(lock_workdir(workdir))
            _held[workdir] = lock
            try:
                return run(config, workdir)
            finally:
                del _held[workdir]
                close_lists()

    return prepared


def _require_one_host(config: ConfigDict, *, shared: bool) -> None:
    if jax.process_count() > 1 and not shared:
        raise InputError(
            f"task {config.task!r}: found {jax.process_count()} hosts, expected one: "
            "it reads a whole collection at one place; start it on one alone"
        )


# The locks of the tasks that run in this process, by their workdirs.
_held: dict[Path, WorkdirLock] = {}


def leave_if_taken(workdir: Path) -> None:
    """To be called before results are written, which would mix with another run's.

    Raises:
        TakenOver: another run has come into the workdir.
    """
    holder = _new_holder(workdir)
    if holder is not None:
        raise TakenOver(
            f"{workdir} is now in use by {holder}, whose lock file has taken the place "
            "of this run's; its results are not written: run it again with another "
            "--workdir"
        )


def save_model(
    workdir: Path,
    source: Checkpoint,
    *,
    model: Mapping[str, Any],
    record: Mapping[str, Any],
) -> None:
    """`save_derived`, beside the checkpoints where another run has come in.

    Raises:
        TakenOver: it has; the model is saved.
    """
    holder = _new_holder(workdir)
    if holder is None:
        save_derived(workdir, source, model=model, record=record)
        return
    name = apart_folder()
    save_derived(workdir, source, model=model, record=record, folder_name=name)
    raise TakenOver(
        f"{workdir} is now in use by {holder}, whose lock file has taken the place of "
        f"this run's; the model is saved in {workdir / name}: make that folder the "
        f"{CHECKPOINTS_FOLDER} of another --workdir"
    )


def _new_holder(workdir: Path) -> str | None:
    """Who has come into the workdir of a task that runs; None: nobody."""
    lock = _held.get(workdir)
    return None if lock is None or lock.is_own() else lock.holder()


def _unwritable(workdir: Path) -> list[str]:
    """Why nothing can be written in a workdir that is there or yet to be made."""
    there = next(p for p in (workdir, *workdir.parents) if os.path.lexists(p))
    if not os.path.isdir(there):
        return [
            f"--workdir: {there} was expected to be a folder, found a file; choose "
            f"another place than {workdir}"
        ]
    if not os.access(there, os.W_OK | os.X_OK):
        return [
            f"--workdir: {there} was expected to be a folder to write to, found one "
            "without the permission; choose another --workdir, or allow it"
        ]
    return []


def _places_of_others(settings: Mapping[str, Any], workdir: Path) -> list[str]:
    """What the workdir would mix with, of all that the configuration reads."""
    problems = []
    for key, value in leaves(settings):
        if key not in PATH_KEYS or not value or not Path(value).is_dir():
            continue  # what is in a bucket is no place on the disk
        taken = [Path(value)]
        if taken[0].name == DESCRIPTOR_FOLDER:
            taken.append(taken[0].parent)  # where its config.json is
        inside = [Path(value) / DESCRIPTOR_FOLDER]
        if key == "index":
            inside = [Path(value) / INDEX_FOLDER]
            taken += [taken[0].parent] if taken[0].name == INDEX_FOLDER else []
        source = settings.get("data", {}).get("source", "folder")
        listed = key != "data.root" or source in SOURCES_OF_FILES
        if key in PHOTO_KEYS and listed and not inside[0].exists():
            # The photos may lie in parts, and only those are looked at.
            inside = list(split_folders(Path(value))) or [Path(value)]
        if any(_same(workdir, place) for place in taken):
            problems.append(
                f"--workdir: {workdir} is {key} itself, where the results would mix "
                "with what is read; choose another folder"
            )
        elif any(
            _same(workdir, place) or _is_below(workdir, place) for place in inside
        ):
            problems.append(
                f"--workdir: {workdir} is inside of {key} = {value}, where the results "
                "would be read as data; choose a folder elsewhere"
            )
    return problems


def _other_task(settings: Mapping[str, Any], workdir: Path) -> list[str]:
    """What other tasks have left in the workdir, which this one would overwrite."""
    task, found, where = settings["task"], None, ""
    config = config_of(workdir)
    if config is not None:
        found = config.get("task", "none of these tasks")
        where = f" in its {CONFIG_FILE}"
    if found is None:
        left = [name for name in MARKS if _left(workdir, name, task)]
        found = f"another task ({', '.join(left)})" if left else task
    if found == task:
        return []
    return [
        f"--workdir: {workdir} was expected to be new or of task {task!r}, found the "
        f"results of {found!r}{where}; choose another folder"
    ]


def task_of(folder: Path) -> str | None:
    """The task whose workdir a folder is, by its config.json; None: it is of none."""
    task = (config_of(folder) or {}).get("task")
    is_name = isinstance(task, str) and task.isidentifier()
    if is_name and importlib.util.find_spec(f"{__package__}.{task}") is not None:
        return task
    return None


def config_of(folder: Path) -> dict[str, Any] | None:
    """What a folder's config.json holds; None: there is none, or one that is cut off.

    What else is there tells then.
    """
    try:
        config = read_json(folder / CONFIG_FILE)
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _left(workdir: Path, name: str, task: str) -> bool:
    return task not in MARKS[name] and (workdir / name).exists()


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder, and no hidden folder keeps it out of sight."""
    real, base = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if base not in real.parents:
        return False
    return not any(name.startswith(".") for name in real.relative_to(base).parts)
