"""Reading that neither hangs for ever nor ends with a process that was killed."""

import contextlib
import errno
import gc
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from multigrain_jax.errors import DataStalledError, ReadingGivenUp

if TYPE_CHECKING:
    import grain

# In one pass over the data: more deaths than these have a cause that stays.
MAX_RESTARTS = 3
# How long a reader that hangs is waited for when it is left behind.
STALLED_CLOSE_S = 5.0
# Shorter where the run was asked to stop: its state is still to be saved.
GIVEN_UP_CLOSE_S = 0.5
# How often whoever waits for a batch looks up.
LOOK_UP_S = 0.2

# The arrays of a batch by their names, in the memory of the host.
HostBatch = dict[str, np.ndarray]
# What yields batches when it is iterated over, and can be closed then.
Batches: TypeAlias = "grain.IterDataset | Generator[HostBatch]"


# Threads that a stalled read left behind.
_left_behind: list[threading.Thread] = []


def never() -> bool:
    """Whether to wait no longer: no."""
    return False


class _ProcessDiedError(RuntimeError):
    """A reading process ended before its work was done."""


def read_and_restart(
    read_from: Callable[[int], Batches],
    *,
    timeout_s: float,
    give_up: Callable[[], bool] = never,
) -> Generator[HostBatch]:
    """All batches in their order, however often a reading process dies (3 times).

    Args:
        read_from: the number of a batch -> what begins with it.
        timeout_s: how long to wait for a batch.
        give_up: whether to wait no longer; asked while no batch comes.

    Raises:
        DataStalledError: no batch came in time, or processes die again and again.
        ReadingGivenUp: `give_up` said so.
    """
    done = restarts = 0
    while True:
        batches = _watched(read_from(done), timeout_s, give_up)
        try:
            with contextlib.closing(batches):
                for batch in batches:
                    done += 1
                    yield batch
            return
        except _ProcessDiedError as error:
            if restarts == MAX_RESTARTS:
                raise DataStalledError(
                    f"reading processes died {restarts + 1} times, the last time with: "
                    f"{error} Processes that are killed for memory are in the "
                    "kernel's log (dmesg); lower num_workers or prefetch_batches, or "
                    "set num_workers to 0"
                ) from error
            restarts += 1
            print(
                f"WARNING: a reading process died ({error}); new ones go on with the "
                f"batch that is due (restart {restarts} of {MAX_RESTARTS})",
                flush=True,
            )


def _watched(
    dataset: Batches, timeout_s: float, give_up: Callable[[], bool]
) -> Generator[HostBatch]:
    """The batches of a data set, each of them in time.

    A thread asks for them, since a call that hangs cannot be interrupted; it is left
    behind then.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    answers: queue.SimpleQueue[HostBatch | Exception] = queue.SimpleQueue()
    reader = threading.Thread(
        target=_answer_undisturbed, args=(dataset, wanted, answers), daemon=True
    )
    reader.start()
    patience = None
    try:
        while True:
            wanted.put(True)
            answer = _wait_for(answers, timeout_s, give_up)
            if isinstance(answer, StopIteration):
                return
            if isinstance(answer, Exception):
                raise answer
            yield answer
    except queue.Empty as error:
        patience = STALLED_CLOSE_S
        _kill_reading_processes()
        raise stalled("batch of images", timeout_s) from error
    except (ReadingGivenUp, KeyboardInterrupt):
        patience = GIVEN_UP_CLOSE_S
        _kill_reading_processes()
        raise
    finally:
        wanted.put(False)
        try:
            reader.join(patience)
        finally:
            if reader.is_alive():
                _left_behind.append(reader)


def _wait_for(
    answers: queue.SimpleQueue[HostBatch | Exception],
    timeout_s: float,
    give_up: Callable[[], bool],
) -> HostBatch | Exception:
    """The next answer; `queue.Empty` after a while, `ReadingGivenUp` before that.

    What counts is time in which this process ran too: a laptop that was asleep, or a
    process that was stopped, has not waited.
    """
    waited = 0.0
    while waited < timeout_s:
        before = time.monotonic()
        look_up = min(LOOK_UP_S, timeout_s - waited)
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=look_up)
        waited += min(time.monotonic() - before, 2 * look_up)
        if give_up():
            raise ReadingGivenUp
    raise queue.Empty


def reading_hangs() -> bool:
    """Whether threads hang in the file system, which Python would wait for."""
    return any(thread.is_alive() for thread in _left_behind)


def end_if_reading_hangs(code: int) -> None:
    """End the process, since Python would wait for a thread that hangs."""
    if reading_hangs():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def stalled(what: str, timeout_s: float) -> DataStalledError:
    """The error that nothing came in time; `what` was waited for."""
    return DataStalledError(
        f"no {what} came within data_timeout_s = {timeout_s:g} seconds: does the "
        "storage of the images answer (a file server that is down, a named pipe among "
        "the files)? If it is only slow, raise the limit or num_workers"
    )


def _answer_undisturbed(
    dataset: Batches,
    wanted: queue.SimpleQueue[bool],
    answers: queue.SimpleQueue[HostBatch | Exception],
) -> None:
    """As `_answer`; Ctrl-C, which reaches all processes, is the main thread's.

    What is blocked here is so in the processes that start here, from their first moment
    on: they would end with the stacks of their calls, in the midst of their imports.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _answer(dataset, wanted, answers)


def _answer(
    dataset: Batches,
    wanted: queue.SimpleQueue[bool],
    answers: queue.SimpleQueue[HostBatch | Exception],
) -> None:
    iterator, shared = None, False
    try:
        while wanted.get():
            try:
                # The first time, processes are started.
                iterator = iter(dataset) if iterator is None else iterator
                batch = next(iterator)
                # Batches of other processes lie in shared memory, which is freed with
                # the first array object over it, whatever still looks at it.
                shared = type(batch["image"]) is not np.ndarray
                if shared:
                    batch = {name: np.array(a) for name, a in batch.items()}
                answers.put(batch)
            except Exception as error:
                answers.put(_as_death(error) or error)
    finally:
        if iterator is not None:
            iterator.close()
        if shared:
            # Grain's iterator keeps its last batches in reference cycles, and memory
            # that is shared until the process ends is reported as leaked.
            del iterator
            gc.collect()


def _as_death(error: Exception) -> _ProcessDiedError | None:
    """The error that a reading process is lost, if that is what an error means.

    What a system lacks for its batches, such as shared memory, others may have taken.
    """
    text = str(error) or type(error).__name__
    lacking = isinstance(error, (OSError, MemoryError))
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return None  # which has a remedy of its own
    if lacking or "terminated unexpectedly" in text:
        return _ProcessDiedError(text)
    return None


def end_with_parent(worker: int, num_workers: int) -> None:
    """Let this reading process end with the one that started it, however that ends.

    A parent that is killed cannot stop its processes, and they, and the memory that
    they share, would stay.

    Args:
        worker: which of the processes this is; Grain gives both.
        num_workers: how many there are.
    """
    del worker, num_workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_await_end, args=(parent.sentinel,), daemon=True
        ).start()


def _await_end(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _kill_reading_processes() -> None:
    # Asked to stop, a process that hangs would be waited for.
    for process in multiprocessing.active_children():
        if process.name.startswith("grain"):
            process.kill()
