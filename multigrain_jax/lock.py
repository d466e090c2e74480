"""One writer per workdir, and one process at a time where several want the same."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Protocol

from multigrain_jax.errors import InputError
from multigrain_jax.files import remove_partial_files

LOCK_FILE = ".lock"
_WHO_LENGTH = 200  # characters of a lock file that are shown, whatever it holds


class Guard(Protocol):
    """What else a workdir is locked by: where it is kept in a bucket, an object."""

    def is_own(self) -> bool:
        """Whether nobody else has come in since."""
        ...

    def holder(self) -> str:
        """Who has."""
        ...


# Of the folders of this process that are kept elsewhere too.
_guards: dict[Path, Guard] = {}


@contextlib.contextmanager
def guarded(workdir: Path, guard: Guard) -> Generator[None]:
    """Within this context the lock of a workdir is no more its own than the guard."""
    _guards[workdir] = guard
    try:
        yield
    finally:
        del _guards[workdir]


class WorkdirLock:
    """A lock that this process holds on a workdir, from `lock_workdir`."""

    def __init__(self, path: Path, file: IO[str] | None):
        """Remember the lock file; None where the file system has no locks."""
        self._path = path
        self._file = file
        self._guard = _guards.get(path.parent)

    def is_own(self) -> bool:
        """Whether nobody else has come in since, to be asked before a checkpoint.

        A lock file that somebody has removed is made anew, unless another process has
        made one: then two write to the workdir, and this one is to leave.
        """
        if self._guard is not None and not self._guard.is_own():
            return False
        if self._file is None:
            return True
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return self._make_anew()
        except OSError:
            return True  # a disk that does not answer is no second run
        return _same_file(found, os.fstat(self._file.fileno()))

    def holder(self) -> str:
        """Who the lock file, or what is in its place, says has the workdir."""
        if self._guard is not None and not self._guard.is_own():
            return self._guard.holder()
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                return _holder(file)
        except OSError:
            return "another process"

    def close(self) -> None:
        """Let others in."""
        if self._file is not None:
            self._file.close()

    def _make_anew(self) -> bool:
        assert self._file is not None
        with contextlib.ExitStack() as stack:
            try:
                opened = self._path.open("x+", encoding="utf-8", errors="replace")
                file = stack.enter_context(opened)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileExistsError, BlockingIOError):
                return False
            except OSError:
                return True  # the workdir itself is gone: the next save says so
            stack.pop_all()
        _sign(file)
        print(f"{self._path} was removed under this run, which has made it anew")
        self._file.close()
        self._file = file
        return True


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Generator[WorkdirLock]:
    """Keep a workdir for this process while the context lasts.

    The lock is the kernel's, on an open file: it goes with the process, however that
    ends. The file itself stays, and tells who holds or held it. What a killed run was
    about to write is removed. Where the context ends by an error before anything else
    was written, the file goes too, and the folders that were made for it.

    Args:
        workdir: a folder; made if it is missing.

    Raises:
        InputError: another run holds it, or nothing can be written there.
    """
    path = workdir / LOCK_FILE
    new_folders = [folder for folder in (workdir, *workdir.parents)]
    new_folders = [folder for folder in new_folders if not folder.exists()]
    is_new = not path.exists()
    file = _open_lock_file(path)
    lock = WorkdirLock(path, file)
    try:
        if file is not None:
            remove_partial_files(workdir)
        yield lock
    except BaseException:
        if is_new and lock.is_own():
            _remove_untouched(workdir, new_folders)
        raise
    finally:
        lock.close()


@contextlib.contextmanager
def wait_for_turn(path: Path, *, purpose: str) -> Generator[None]:
    """Be the only process within this context; whoever comes second waits.

    As in `lock_workdir` the lock is the kernel's and goes with the process, and the
    file stays.

    Args:
        path: a file in an existing folder, for the lock alone.
        purpose: what is waited for, in words.
    """
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        try:
            _lock_in_turn(file, purpose)
        except OSError as error:
            print(f"{path} cannot be locked ({error}): start no second process there")
        _sign(file)
        yield


def _lock_in_turn(file: IO[str], purpose: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{purpose}: waiting for {_holder(file)}", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def _open_lock_file(path: Path) -> IO[str] | None:
    """The lock file, locked and signed; None where the file system has no locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(
                f"{path}: the lock of the workdir cannot be opened "
                f"({error.strerror}), expected a file that this user may write; remove "
                "or mend it, or choose another --workdir"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise InputError(
                    f"{path.parent} is in use by {holder}; wait for that run, stop it, "
                    "or choose another --workdir"
                ) from error
            print(f"{path} cannot be locked ({error}): start no second run there")
            _sign(file)
            file.close()
            return None
        # Its holder may have removed it between the two calls.
        with contextlib.suppress(FileNotFoundError):
            if _same_file(os.stat(path), os.fstat(file.fileno())):
                _sign(file)
                return file
        file.close()


def _sign(file: IO[str]) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
    # The lock holds without its holder's name, on a full disk.
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), text.encode())


def _holder(file: IO[str]) -> str:
    file.seek(0)
    words = " ".join(file.read(_WHO_LENGTH).split())
    return "".join(c for c in words if c.isprintable()) or "another process"


def _same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _remove_untouched(workdir: Path, new_folders: list[Path]) -> None:
    """Remove the lock file where nothing else is, and folders made for it."""
    with contextlib.suppress(OSError):
        if os.listdir(workdir) == [LOCK_FILE]:
            (workdir / LOCK_FILE).unlink()
            for folder in new_folders:
                folder.rmdir()
