"""What is asked for is read by many threads; what is taken is what would be read."""

import threading
import time

import pytest

from multigrain_jax.data import read_ahead
from multigrain_jax.data.read_ahead import THREADS, ReadAhead


def test_many_are_read_at_once_and_each_once():
    together, calls = threading.Barrier(THREADS, timeout=30), []

    def read(number):
        calls.append(number)
        together.wait()
        return bytes([number])

    ahead = ReadAhead(read, lambda _: 1)
    ahead.ask(range(THREADS))
    ahead.ask(range(THREADS))
    assert [ahead.take(n) for n in range(THREADS)] == [bytes([n]) for n in range(16)]
    assert sorted(calls) == list(range(THREADS))


def test_an_error_is_raised_where_it_is_taken_and_the_next_try_reads_anew():
    broken = [True]

    def read(number):
        if broken[0]:
            raise OSError(5, "gone")
        return b"there"

    ahead = ReadAhead(read, lambda _: 1)
    ahead.ask([3])
    with pytest.raises(OSError, match="gone"):
        ahead.take(3)
    broken[0] = False
    assert ahead.take(3) == ahead.take(4) == b"there"


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(read_ahead, "MOST_BYTES", 10)
    read = []
    ahead = ReadAhead(lambda n: read.append(n) or bytes(n), lambda n: n)
    ahead.ask([50, 4, 4, 6, 3])
    assert len(ahead.take(50)) == 50  # a single one may be larger
    assert len(ahead._begun) == 2 and sum(s for s, _ in ahead._begun.values()) == 10
    assert [len(ahead.take(n)) for n in (3, 4, 6, 7)] == [3, 4, 6, 7]
    assert not ahead._begun and not ahead._asked
    assert sorted(read) == [3, 4, 6, 7, 50]


def test_what_waits_in_the_queue_is_read_by_whoever_wants_it(monkeypatch):
    monkeypatch.setattr(read_ahead, "THREADS", 1)
    goes_on = threading.Event()

    def read(number):
        if number == 0:
            goes_on.wait()
        return bytes([number])

    ahead = ReadAhead(read, lambda _: 1)
    ahead.ask([0, 1])
    assert ahead.take(1) == b"\x01"
    goes_on.set()
    assert ahead.take(0) == b"\x00"


def test_threads_without_work_end_and_come_back(monkeypatch):
    monkeypatch.setattr(read_ahead, "IDLE_S", 0.001)
    ahead = ReadAhead(lambda number: bytes([number]), lambda _: 1)
    for _ in range(20):
        ahead.ask(range(5))
        assert [ahead.take(n) for n in range(5)] == [bytes([n]) for n in range(5)]
    for _ in range(10_000):  # and not for so long: a machine may be halted meanwhile
        if not ahead._num_threads:
            break
        time.sleep(0.001)
    assert ahead._num_threads == 0
