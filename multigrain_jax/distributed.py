"""Many hosts: how they find each other, and what they have to agree on.

Every host runs the same command. The first one, process 0, writes the workdir; the
others keep their own records below `hosts/`. What decides the flow of a run (the step
to resume from, whether to stop) is decided by all of them together.
"""

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from multigrain_jax.errors import InputError

# Let the cluster's environment tell: TPU pods, SLURM, Open MPI, Kubernetes.
AUTOMATIC = "auto"
HOSTS_FOLDER = "hosts"
# Hosts compare notes so seldom, since the devices are waited for then.
QUESTIONS_BETWEEN_AGREEMENTS = 10


def start_hosts(
    *, coordinator: str | None, num_processes: int | None, process_index: int | None
) -> None:
    """Connect with the other hosts, before anything is computed; once per process.

    Args:
        coordinator: None for a host alone, "auto", or host:port of process 0.
        num_processes: how many there are; with host:port only.
        process_index: which of them this is; with host:port only.

    Raises:
        InputError: settings that contradict each other, or no connection.
    """
    numbers = (num_processes, process_index)
    automatic = coordinator in (None, AUTOMATIC)
    by_hand = not automatic and ":" in coordinator and None not in numbers
    if not by_hand and not (automatic and numbers == (None, None)):
        raise InputError(
            f"distributed: coordinator = {coordinator!r} with num_processes, "
            f"process_index = {numbers}; give all three (host:port and two numbers), "
            'or coordinator = "auto" alone on a TPU pod or under SLURM'
        )
    if coordinator is None or jax.distributed.is_initialized():
        return
    try:
        if coordinator == AUTOMATIC:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_index)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"distributed.coordinator = {coordinator!r}: the hosts did not find each "
            f"other: {error}; expected the same command on all of them at the same "
            "time, and a free port of process 0 that all reach; see docs/scaling.md"
        ) from error


@contextlib.contextmanager
def quiet_unless_first() -> Generator[None]:
    """Within this context process 0 alone prints; errors of all are seen."""
    if jax.process_index() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def all_done() -> Generator[None]:
    """A context that no host leaves before the others, unless it fails.

    At the end of a process JAX waits for the others too, but for minutes only, and
    process 0 may be busy for longer with what it alone does.
    """
    yield
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("all done")


def own_folder(workdir: Path) -> Path:
    """Where this process keeps its records: the workdir, or `hosts/<n>` in it."""
    index = jax.process_index()
    return workdir / HOSTS_FOLDER / str(index) if index else workdir


def folders_of_others(own: Path) -> list[Path]:
    """The folders of the other processes of this run, and of earlier runs.

    Args:
        own: what `own_folder` gives this process.
    """
    workdir = own.parent.parent if jax.process_index() else own
    return [f for f in (workdir, *workdir.glob(f"{HOSTS_FOLDER}/*")) if f != own]


def agree(value: int) -> int:
    """Process 0's value, on every host."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def agree_on_matrix(matrix: np.ndarray) -> np.ndarray:
    """Process 0's int32 matrix, on every host; what the others give does not count."""
    if jax.process_count() == 1:
        return matrix
    shape = agree(matrix.shape[0]), agree(matrix.shape[1])
    own = matrix if jax.process_index() == 0 else np.zeros(shape)
    if not all(shape):
        return own.astype(np.int32)
    return np.asarray(multihost_utils.broadcast_one_to_all(own.astype(np.int32)))


def gather_shares(share: np.ndarray) -> np.ndarray:
    """All hosts' shares [b] of an array, in the hosts' order: [hosts, b].

    To the bit, whatever the dtype: JAX alone would round 64 bits to 32.
    """
    if jax.process_count() == 1:
        return share[None]
    shape = (jax.process_count(), *share.shape)
    if not share.size:
        return np.zeros(shape, share.dtype)
    gathered = np.asarray(multihost_utils.process_allgather(_words(share)))
    return np.ascontiguousarray(gathered).view(share.dtype).reshape(shape)


def host_rows(count: int) -> slice:
    """This host's contiguous share of `count` rows; that of the last may be empty."""
    size = -(-count // jax.process_count())
    start = min(count, size * jax.process_index())
    return slice(start, min(count, start + size))


def gather_rows(share: np.ndarray, *, count: int) -> np.ndarray:
    """All hosts' rows in their order: [count, …].

    Args:
        share: this host's, as `host_rows` cuts them.
        count: how many rows all hosts have.
    """
    if jax.process_count() == 1:
        return share
    size = -(-count // jax.process_count())
    padded = np.zeros((size, *share.shape[1:]), share.dtype)
    padded[: len(share)] = share
    return gather_shares(padded).reshape(-1, *share.shape[1:])[:count]


def sum_over_hosts(array: np.ndarray) -> np.ndarray:
    """The sum of all hosts' arrays, added in the hosts' order and in their dtype.

    Every host adds up one part, and gets the others': it sends and receives about twice
    the array's bytes, however many hosts there are.
    """
    hosts = jax.process_count()
    if hosts == 1 or not array.size:
        return array
    parts = np.zeros((hosts, -(-array.size // hosts)), array.dtype)
    parts.reshape(-1)[: array.size] = array.reshape(-1)
    own = _exchange(parts).sum(axis=0, dtype=array.dtype)
    return gather_shares(own).reshape(-1)[: array.size].reshape(array.shape)


def _exchange(parts: np.ndarray) -> np.ndarray:
    """Give row i to host i; returns what the hosts gave this one: [hosts, n]."""
    hosts = jax.process_count()
    devices = sorted(jax.devices(), key=lambda each: (each.process_index, each.id))
    mesh = Mesh(
        np.array(devices).reshape(hosts, -1),
        ("hosts", "devices"),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )
    given = jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec("hosts")),
        _words(parts).reshape(1, hosts, -1),
    )
    turned = NamedSharding(mesh, PartitionSpec(None, "hosts"))
    taken = jax.jit(lambda array: array, out_shardings=turned)(given)
    received = np.ascontiguousarray(taken.addressable_data(0))
    return received.view(parts.dtype).reshape(parts.shape)


def _words(array: np.ndarray) -> np.ndarray:
    """The bits of an array, flat, in a dtype that JAX leaves as it is."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8 if flat.itemsize % 4 else np.uint32)


def host_slices(batch_size: int, *, microbatches: int) -> list[slice]:
    """This host's contiguous share of every microbatch of a step's samples.

    Args:
        batch_size: samples of a microbatch, a multiple of the number of hosts.
        microbatches: how many of them follow each other.
    """
    if jax.process_count() == 1:
        return [slice(0, batch_size * microbatches)]
    share = batch_size // jax.process_count()
    first = share * jax.process_index()
    starts = [first + batch_size * number for number in range(microbatches)]
    return [slice(start, start + share) for start in starts]


def agree_to_stop(should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """A question that all hosts answer alike: whether any of them wants to stop.

    All have to ask it equally often; they compare notes at every tenth time.
    """
    if jax.process_count() == 1:
        return should_stop
    asked, stopping = 0, False

    def agreed() -> bool:
        nonlocal asked, stopping
        asked += 1
        if not stopping and asked % QUESTIONS_BETWEEN_AGREEMENTS == 0:
            wishes = multihost_utils.process_allgather(np.array([should_stop()]))
            stopping = bool(np.any(wishes))
        return stopping

    return agreed
