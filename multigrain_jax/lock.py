"""One run per workdir, and one process at a time where several want the same."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from multigrain_jax.errors import InputError
from multigrain_jax.files import remove_partial_files

LOCK_FILE = ".lock"


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Generator[None]:
    """Keep a workdir for this process while the context lasts.

    The lock is the kernel's, on an open file: it goes with the process, however that
    ends. The file itself stays, and tells who holds or held it. What a killed run was
    about to write is removed.

    Args:
        workdir: an existing folder.

    Raises:
        InputError: another run holds it.
    """
    path = workdir / LOCK_FILE
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{workdir} is in use by {holder}; wait for that run, stop it, or "
                "choose another --workdir"
            ) from error
        except OSError as error:
            print(f"{path} cannot be locked ({error}): start no second run there")
        else:
            remove_partial_files(workdir)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def wait_for_turn(path: Path, *, purpose: str) -> Generator[None]:
    """Be the only process within this context; whoever comes second waits.

    As in `lock_workdir` the lock is the kernel's and goes with the process, and the
    file stays.

    Args:
        path: a file in an existing folder, for the lock alone.
        purpose: what is waited for, in words.
    """
    with path.open("a+") as file:
        try:
            _lock_in_turn(file, purpose)
        except OSError as error:
            print(f"{path} cannot be locked ({error}): start no second process there")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _lock_in_turn(file: TextIO, purpose: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        print(f"{purpose}: waiting for {holder}", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
