"""Reading that dies or hangs, by data sets that do so when they are told to."""

import gc
import queue
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from multigrain_jax.data import watchdog
from multigrain_jax.data.watchdog import MAX_RESTARTS, read_and_restart, stalled
from multigrain_jax.errors import DataStalledError, ReadingGivenUp

# As Grain words it.
DIED = RuntimeError("worker process 0 was terminated unexpectedly, exit code -9")


class Numbers:
    """Batches of their numbers from `first` on; at `fails_at` it does as told."""

    def __init__(self, first, *, count=5, fails_at=None, fail=None):
        self.number, self.count = first, count
        self.fails_at, self.fail = fails_at, fail
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        if self.number == self.fails_at:
            self.fail()
        if self.number == self.count:
            raise StopIteration
        self.number += 1
        return {"image": np.array([self.number - 1])}

    def close(self):
        self.closed = True


def dies():
    raise DIED


def read(read_from):
    batches = read_and_restart(read_from, timeout_s=60.0)
    return [int(batch["image"][0]) for batch in batches]


def test_batches_come_in_order_and_the_reader_is_closed():
    opened = []

    def read_from(first):
        opened.append(Numbers(first))
        return opened[-1]

    assert read(read_from) == [0, 1, 2, 3, 4]
    assert [numbers.closed for numbers in opened] == [True]


def test_a_reader_that_is_left_early_is_closed():
    numbers = Numbers(0)
    batches = read_and_restart(lambda first: numbers, timeout_s=60.0)
    next(batches)
    batches.close()
    assert numbers.closed


def test_after_a_death_others_go_on_with_the_batch_that_is_due(capsys):
    firsts = []

    def read_from(first):
        firsts.append(first)
        return Numbers(first, fails_at=3 if len(firsts) == 1 else None, fail=dies)

    assert read(read_from) == [0, 1, 2, 3, 4]
    assert firsts == [0, 3]
    assert f"(restart 1 of {MAX_RESTARTS})" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), MemoryError(), FileNotFoundError(2, "shm")]
)
def test_what_a_system_lacks_is_a_death_that_others_are_started_after(error, capsys):
    def lacks():
        raise error

    firsts = []

    def read_from(first):
        firsts.append(first)
        return Numbers(first, fails_at=1 if len(firsts) == 1 else None, fail=lacks)

    assert read(read_from) == [0, 1, 2, 3, 4]
    assert firsts == [0, 1]
    assert str(error) in capsys.readouterr().out


def test_too_many_open_files_have_a_remedy_of_their_own():
    class Unopened(Numbers):
        def __iter__(self):
            raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        read(Unopened)


def test_processes_that_die_again_and_again_end_the_run():
    firsts = []

    def read_from(first):
        firsts.append(first)
        return Numbers(first, fails_at=2, fail=dies)

    with pytest.raises(DataStalledError, match=r"died 4 times.*dmesg.*num_workers"):
        read(read_from)
    assert firsts == [0, 2, 2, 2]


def test_another_error_is_the_readers_own():
    def broken():
        raise KeyError("not there")

    with pytest.raises(KeyError, match="not there"):
        read(lambda first: Numbers(first, fails_at=1, fail=broken))


def test_a_batch_that_does_not_come_is_not_waited_for_in_vain(monkeypatch):
    monkeypatch.setattr(watchdog, "STALLED_CLOSE_S", 0.05)
    released = threading.Event()
    batches = read_and_restart(
        lambda first: Numbers(first, fails_at=1, fail=released.wait), timeout_s=1.0
    )
    try:
        assert next(batches)["image"] == 0
        with pytest.raises(DataStalledError, match=r"data_timeout_s = 1 seconds"):
            next(batches)
    finally:
        released.set()


def test_a_reader_that_hangs_is_given_up_when_that_is_asked(monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_UP_S", 0.01)
    monkeypatch.setattr(watchdog, "GIVEN_UP_CLOSE_S", 0.05)
    released, asked = threading.Event(), threading.Event()
    batches = read_and_restart(
        lambda first: Numbers(first, fails_at=1, fail=released.wait),
        timeout_s=600.0,
        give_up=asked.is_set,
    )
    try:
        assert next(batches)["image"] == 0
        asked.set()
        with pytest.raises(ReadingGivenUp):
            next(batches)
    finally:
        released.set()


def test_ctrl_c_ends_the_wait_for_a_reader_that_hangs(monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_UP_S", 0.01)
    monkeypatch.setattr(watchdog, "GIVEN_UP_CLOSE_S", 0.05)
    released, looks = threading.Event(), []

    def interrupted():
        looks.append(0)
        if len(looks) == 3:
            signal.raise_signal(signal.SIGINT)
        return False

    batches = read_and_restart(
        lambda first: Numbers(first, fails_at=0, fail=released.wait),
        timeout_s=600.0,
        give_up=interrupted,
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        assert watchdog.reading_hangs()
    finally:
        released.set()


def test_processes_that_a_reader_starts_do_not_see_ctrl_c():
    script = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('lives')"
    command, said = [sys.executable, "-c", script], []

    def start():
        said.append(subprocess.run(command, capture_output=True, text=True, check=True))

    assert read(lambda first: Numbers(first, fails_at=0, fail=start)) == [0, 1, 2, 3, 4]
    assert [(done.stdout, done.stderr) for done in said] == [("lives\n", "")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in ended.stderr


def test_time_in_which_the_process_was_stopped_does_not_count(monkeypatch):
    """The clock jumps by an hour at each look, and a batch comes at the fifth."""
    now, looks = [0.0], []

    class Answers(queue.SimpleQueue):
        def get(self, block=True, timeout=None):
            looks.append(timeout)
            now[0] += 3600
            if len(looks) < 5:
                raise queue.Empty
            return {"image": np.zeros(1)}

    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    assert watchdog._wait_for(Answers(), 10.0, lambda: False)["image"] == 0
    with pytest.raises(queue.Empty):
        looks.clear()
        watchdog._wait_for(Answers(), 1.0, lambda: False)


def test_a_process_ends_with_its_parent():
    """A parent is killed; its reading process, which sleeps, ends by itself.

    Not by Ctrl-C, which is the parent's to answer.
    """
    script = (
        "import multiprocessing, os, signal, time\n"
        "from multigrain_jax.data.watchdog import end_with_parent\n"
        "def work():\n"
        "    end_with_parent(0, 1)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('fork')\n"
        "    multiprocessing.Process(target=work).start()\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip().isdigit()
        parent.kill()
        # The child holds the other end of the pipe: it is closed once that has ended.
        assert parent.communicate(timeout=60) == ("", None)


def test_what_is_waited_for_is_named():
    assert str(stalled("image header", 5)).startswith("no image header came within")


class Shared(np.ndarray):
    """In place of Grain's arrays in shared memory."""


def test_arrays_in_shared_memory_are_copied_and_let_go(monkeypatch):
    """Their memory is freed with them, whoever still looks at it."""
    collected, memory = [], np.zeros(1)
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))

    def read_from(first):
        yield {"image": memory.view(Shared), "label": memory}

    (batch,) = read_and_restart(read_from, timeout_s=60.0)
    memory[:] = 1
    assert type(batch["image"]) is np.ndarray
    assert batch["image"] == batch["label"] == 0
    assert collected == [1]  # no reference cycle of Grain's keeps it
