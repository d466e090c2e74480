"""A task whose workdir is in a bucket: run on a working copy of this machine."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from multigrain_jax.buckets import is_bucket, normalize
from multigrain_jax.descriptors.approximate.milvus_engine import LITE
from multigrain_jax.distributed import agree, start_hosts
from multigrain_jax.tasks.bounds import leaves, number_problems
from multigrain_jax.tasks.check import refuse
from multigrain_jax.tasks.prepare import PATH_KEYS, PHOTO_KEYS
from multigrain_jax.working_copy import working_copy

Task = Callable[[ConfigDict, Path], dict[str, float]]


def run_on_bucket(run: Task, config: ConfigDict, url: str) -> dict[str, float]:
    """Run a task on a copy of a workdir that is in a bucket, and mirror it there.

    Args:
        run: the task.
        config: its configuration.
        url: the workdir's address.

    Raises:
        InputError: another run has the workdir, or the bucket cannot be used.
        CheckpointNotSavedError: not all that was written could be uploaded.
        Exception: those of the task.
    """
    settings = config.copy_and_resolve_references().to_dict()
    hosts = config.get("distributed")
    if hosts is not None:
        found = {"task": config.task, "distributed": hosts.to_dict()}
        refuse(number_problems(found))
        start_hosts(**hosts.to_dict())
    refuse([*_places_of_others(settings, url), *_written_in_place(settings, url)])
    index = jax.process_index() if hosts is not None else 0
    with working_copy(
        url,
        host=index,
        writes=not config.get("dry_run", False),
        meet=_meet,
    ) as workdir:
        return run(config, workdir)


def _places_of_others(settings: Mapping[str, Any], url: str) -> list[str]:
    """What the workdir would mix with, of what the configuration reads in buckets."""
    problems = []
    for key, value in leaves(settings):
        if key not in PATH_KEYS or not isinstance(value, str) or not is_bucket(value):
            continue
        place = normalize(value)
        # An address may name the folder of descriptors or of checkpoints in a workdir.
        if url in (place, place.rpartition("/")[0]):
            problems.append(
                f"--workdir: {url} is {key} itself, where the results would mix with "
                "what is read; choose another address"
            )
        elif key in PHOTO_KEYS and f"{url}/".startswith(f"{place}/"):
            problems.append(
                f"--workdir: {url} is inside of {key} = {value}, where the results "
                "would be read as data; choose an address elsewhere"
            )
    return problems


def _written_in_place(settings: Mapping[str, Any], url: str) -> list[str]:
    """What changes its files so that no moment has all of them whole."""
    # Of other tasks `engine` is what computes the network.
    engine, milvus = settings.get("engine"), settings.get("milvus")
    if engine != "milvus" or milvus is None or milvus["uri"] != LITE:
        return []
    return [
        f"--workdir: found {url} for Milvus Lite, whose files change in their places, "
        "expected a folder of this machine; name one, or choose --config.engine=faiss"
    ]


def _meet() -> None:
    """Wait for all hosts."""
    agree(0)
