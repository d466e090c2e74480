"""A training that goes on with any number of devices, and what its model embeds.

And processes on loopback that do tasks together.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from helpers.configs import fault_config
from helpers.sources import open_photos
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.evaluation.embed import Embedded, embed_all, make_embed_step
from multigrain_jax.evaluation.sharing import own_rows
from multigrain_jax.main import TASKS
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.opened_model import open_model
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks import train_build

DRIVER = Path(__file__).parents[1] / "faults" / "hosts_driver.py"
TASKS_DRIVER = Path(__file__).parent / "tasks_driver.py"
TIMEOUT = 600


class Job(NamedTuple):
    """A task with a configuration of its own.

    Attributes:
        recipe: a file of configs/, without its ending.
        argument: of the recipe, or None.
        changes: other values by dotted key.
        workdir: where results go.
    """

    recipe: str
    argument: str | None
    changes: Mapping[str, Any]
    workdir: str


def job_config(recipe: str, argument: str | None, changes: Mapping[str, Any]):
    """The configuration of a job, whose lists may have been tuples."""
    module = importlib.import_module(f"configs.{recipe}")
    config = module.get_config(*([] if argument is None else [argument]))
    config.update_from_flattened_dict(
        {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    )
    return config


def free_address() -> str:
    """A port of loopback that nobody listens at, as host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def processes_together(
    commands: Sequence[Sequence[str]],
) -> Generator[list[subprocess.Popen[str]]]:
    """Processes that run at the same time; none is left behind."""
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_jobs(
    jobs: Sequence[Job], folder: Path, *, num_hosts: int = 2
) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Run jobs on several hosts; each host's reports of `tasks_driver`, and its words.

    Args:
        jobs: the tasks.
        folder: for the files that the hosts are told by and tell.
        num_hosts: how many processes.
    """
    (folder / "jobs.json").write_text(json.dumps(jobs))
    reports = [folder / f"report{index}.json" for index in range(num_hosts)]
    address = free_address()
    given = [sys.executable, str(TASKS_DRIVER), str(folder / "jobs.json"), address]
    commands = [
        [*given, str(num_hosts), str(index), str(report)]
        for index, report in enumerate(reports)
    ]
    with processes_together(commands) as processes:
        stop = threading.Timer(TIMEOUT, lambda: [each.kill() for each in processes])
        stop.start()
        said = [process.communicate()[0] for process in processes]
        stop.cancel()
        codes = [process.returncode for process in processes]
        assert codes == [0] * num_hosts, "\n".join(said)
    return [json.loads(report.read_text()) for report in reports], said


def run_alone(job: Job) -> dict[str, float]:
    """Run a job in this process; what it returns."""
    config = job_config(job.recipe, job.argument, job.changes)
    task = importlib.import_module(TASKS[config.task])
    return task.run(config, Path(job.workdir))


def use_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let trainings in this process see its first `count` devices alone."""
    monkeypatch.setattr(train_build, "make_mesh", lambda: make_mesh(count))
    monkeypatch.setattr(run_module.jax, "device_count", lambda: count)


def hosts_config(photos: str | Path, **changes: Any) -> ConfigDict:
    """A training in float64, of two microbatches a step, with validation."""
    config = fault_config(
        Path(photos),
        compute_dtype="float64",
        log_sample_ids=True,
        gradient_accumulation_steps=2,
        batch_size=8,
        sampling_group_size=8,
    )
    config.data.val_split = "val"
    config.update(changes)
    return config


def embed_validation(photos: str | Path, workdir: str | Path, mesh: Mesh) -> Embedded:
    """Descriptors of the validation photos by a workdir's model, in float64."""
    opened = open_model(workdir, dtype=np.dtype(np.float64))
    source = open_photos(photos, "val")
    reading = Reading(num_workers=0, prefetch=4, timeout_s=600.0)
    plan = plan_batches(
        source,
        test_size=33,
        test_mode="square",
        batch_size=4,
        smallest_side=1,
        timeout_s=reading.timeout_s,
    )
    return embed_all(
        make_embed_step(opened.graphdef, backbone=BACKBONES["tiny"], mesh=mesh),
        put_replicated(mesh, opened.variables),
        make_eval_batches(source, own_rows(plan), reading=reading),
        mesh=mesh,
    )


@contextlib.contextmanager
def hosts(photos, workdir, *, epochs=2, stop=0, embed="-", output="-", cache=None):
    """Two processes that train together; none is left behind."""
    coordinator = free_address()
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache or workdir.parent / "cache"),
    }
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                *map(str, (DRIVER, photos, workdir, coordinator, index)),
                *map(str, (epochs, stop, embed, output)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def train_on_two(photos, workdir, **arguments):
    """Two processes that train to their end; what they said."""
    with hosts(photos, workdir, **arguments) as processes:
        said = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
        assert [p.returncode for p in processes] == [0, 0], "\n".join(said)
        return said


def train_on_one(photos, workdir, *, stop=None, epochs=2):
    """Train in this process."""
    with contextlib.suppress(StoppedEarly) if stop else contextlib.nullcontext():
        run_module.run(
            hosts_config(photos, stop_at_step=stop, num_epochs=epochs), workdir
        )


def assert_close(one, other):
    """Two trees of arrays, each within 1e-9 of its largest value."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            y, x, rtol=0, atol=1e-9 * max(1e-30, np.max(np.abs(x), initial=0))
        ),
        one,
        other,
    )
