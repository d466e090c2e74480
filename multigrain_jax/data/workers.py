"""What reading processes share, and what each of them may take."""

import atexit
import contextlib
import fcntl
import functools
import multiprocessing.shared_memory
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.data.watchdog import end_with_parent
from multigrain_jax.terminal import outlive_readers

SHARED_MEMORY = Path("/dev/shm")
# How pieces of shared memory are named: this, and who made them.
_PREFIX = "mg"
_TOKEN_BYTES = 3
_LOCK = re.compile(rf"{_PREFIX}([0-9a-f]{{{2 * _TOKEN_BYTES}}})\.lock")
# Batches that whoever takes them has not let go of yet.
_READ_LAST = 2
# What a reading process takes beside photos and batches: libraries, and their threads.
_SLACK_BYTES = 1 << 30
# The file and its pixels, and as much again while they become RGB.
_COPIES_OF_PHOTO = 3


class Processes(NamedTuple):
    """How many reading processes there are, and how far each of them reads ahead.

    Attributes:
        number: of processes; 0: threads read.
        ahead: batches that each keeps ready, beside the one in its hands.
    """

    number: int
    ahead: int

    def batches(self) -> int:
        """How many batches lie in shared memory at most."""
        return self.number * (self.ahead + 1) + _READ_LAST


def free_shared_memory() -> int | None:
    """Free bytes, 0 where nothing can be shared; None of a system that does not say."""
    if sys.platform != "linux":
        return None
    if not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return 0
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


def fitting(wanted: Processes, batch_bytes: int, *, deaths: int = 0) -> Processes:
    """As many of the processes as have the shared memory that they take.

    With less they would be killed. First they read less far ahead, then there are
    fewer, and then threads read: the batches are the same. A line says so.

    Args:
        wanted: what the recipe asks for.
        batch_bytes: size of a batch.
        deaths: how often processes have died that fitted: others take memory too, and
            each time as much more is to be free.
    """
    free = free_shared_memory()
    batch_bytes *= 1 + deaths
    needed = wanted.batches() * batch_bytes
    if wanted.number == 0 or free is None or needed <= free:
        return wanted
    choices = [
        *(wanted._replace(ahead=n) for n in range(wanted.ahead - 1, 0, -1)),
        *(Processes(n, 1) for n in range(wanted.number - 1, 0, -1)),
    ]
    fit = (each for each in choices if each.batches() * batch_bytes <= free)
    found = next(fit, Processes(0, wanted.ahead))
    then = (
        f"{found.number} read {found.ahead} batches ahead each"
        if found.number
        else "images are read with threads"
    )
    has = f"has {free >> 20} MiB free" if free else "cannot be written, or is full"
    print(
        f"WARNING: num_workers = {wanted.number}: the batches in flight want about "
        f"{needed >> 20} MiB of shared memory, and {SHARED_MEMORY} {has}: {then} "
        "instead; enlarge it (docker run --shm-size=8g), or lower prefetch_batches or "
        "num_workers",
        flush=True,
    )
    return found


def begin_processes(
    *, photo_bytes: int, batches_bytes: int
) -> Callable[[int, int], None]:
    """What each reading process is to do first.

    It ends with this process, gives what it shares names by which a later run knows
    that this one has left it, and takes a bounded amount of memory: a photo that wants
    more cannot be read, and the process goes on.

    Args:
        photo_bytes: what decoding a photo may take.
        batches_bytes: what the batches in its hands take.
    """
    return functools.partial(
        _begin,
        token=_own_token(),
        num_bytes=_COPIES_OF_PHOTO * photo_bytes + batches_bytes + _SLACK_BYTES,
    )


def _begin(worker: int, num_workers: int, *, token: str | None, num_bytes: int) -> None:
    end_with_parent(worker, num_workers)
    outlive_readers()  # a line that nobody reads is no error of the photo's
    if token is not None and hasattr(multiprocessing.shared_memory, "_SHM_NAME_PREFIX"):
        name = f"/{_PREFIX}{token}"
        multiprocessing.shared_memory._SHM_NAME_PREFIX = name  # pyright: ignore[reportAttributeAccessIssue] - no public way to name them
    limit_memory(num_bytes)


def limit_memory(num_bytes: int) -> None:
    """Let this process take so much memory more than it has, where systems can do it.

    Beyond that Python raises MemoryError, and libraries fail.
    """
    try:
        import resource

        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except (ImportError, OSError):
        return  # no such limit, or no such folder
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        return
    limit = int(found[1]) * 1024 + num_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = [value for value in (soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *lower]), hard))


@functools.cache
def _own_token() -> str | None:
    """What the names of this process's shared memory begin with; None: no matter.

    A file of that name is locked as long as the process lives, however it ends.
    """
    if sys.platform != "linux":
        return None
    clear_left_memory()
    token = secrets.token_hex(_TOKEN_BYTES)
    path = SHARED_MEMORY / f"{_PREFIX}{token}.lock"
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None  # nothing can be shared, or another run was faster
    atexit.register(_remove, path)
    return token


def clear_left_memory() -> None:
    """Remove the shared memory of runs that were killed with all their processes."""
    with contextlib.suppress(OSError):
        for path in list(SHARED_MEMORY.glob(f"{_PREFIX}*.lock")):
            found = _LOCK.fullmatch(path.name)
            if found is not None and _is_left(path):
                for left in list(SHARED_MEMORY.glob(f"{_PREFIX}{found[1]}*")):
                    _remove(left)


def _is_left(path: Path) -> bool:
    """Whether nobody holds a lock file."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False  # of another user, or gone by now
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
