"""Being asked to stop: by a signal, or by a deadline."""

import os
import signal
import time

import pytest

from multigrain_jax.train.signals import StopSignals, TimeLimit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_and_the_handlers_come_back(number):
    asked_before = []
    previous = signal.signal(number, lambda *_: asked_before.append(1))
    try:
        with pytest.raises(KeyError), StopSignals() as requested:
            assert not requested()
            os.kill(os.getpid(), number)
            assert requested()
            raise KeyError
        assert not asked_before
        os.kill(os.getpid(), number)
        assert asked_before == [1]
    finally:
        signal.signal(number, previous)


def test_a_hangup_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with StopSignals() as requested:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not requested()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_the_reserve_grows_with_steps_and_saves(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    limit = TimeLimit(1.0, started=100.0, save_seconds=lambda: 50.0)
    for step in range(1, 400):
        now[0] = 100.0 + 10 * step
        if limit.reached():
            break
    # 3600 seconds without 2 · (10 + 50), and the question before 3490 is at 3480.
    assert now[0] - 100.0 == 3480
    assert not TimeLimit(None, started=0.0, save_seconds=float).reached()
