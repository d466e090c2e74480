"""A task whose workdir is in a bucket: run on a working copy of this machine."""

from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from multigrain_jax.distributed import agree, start_hosts
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import refuse
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
    hosts = config.get("distributed")
    if hosts is not None:
        settings = {"task": config.task, "distributed": hosts.to_dict()}
        refuse(number_problems(settings))
        start_hosts(**hosts.to_dict())
    index = jax.process_index() if hosts is not None else 0
    with working_copy(
        url,
        host=index,
        writes=not config.get("dry_run", False),
        meet=_meet,
    ) as workdir:
        return run(config, workdir)


def _meet() -> None:
    """Wait for all hosts."""
    agree(0)
