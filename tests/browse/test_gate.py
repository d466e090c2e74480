"""The bound of what is under way."""

import time

import pytest

from multigrain_jax.browse.gate import MAX_WAIT_S, MIN_WAIT_S, Gate, GateFullError


def test_a_gate_lets_so_many_in():
    gate = Gate(max_requests=2, max_bytes=10)
    with gate.enter(), gate.enter():
        with pytest.raises(GateFullError) as refused, gate.enter():
            pass
        assert refused.value.retry_after_s == MIN_WAIT_S
        assert gate.inside == 2
    with gate.enter():
        assert gate.inside == 1
    assert gate.inside == 0


def test_a_gate_counts_what_requests_hold():
    gate = Gate(max_requests=5, max_bytes=10)
    with gate.enter() as first:
        first.hold(6)
        with pytest.raises(GateFullError), gate.enter() as second:
            second.hold(4)
            second.hold(1)
        with gate.enter() as third:
            third.hold(4)  # the second has let go
    assert first.held == 6


def test_the_wait_follows_the_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    gate = Gate(max_requests=2, max_bytes=10)
    with gate.enter():
        for _ in range(60):
            with gate.enter():
                now[0] += 4.0
        with gate.enter(), pytest.raises(GateFullError) as refused, gate.enter():
            pass
    assert refused.value.retry_after_s == 8
    with gate.enter():
        for _ in range(60):
            with gate.enter():
                now[0] += 100.0
        with gate.enter(), pytest.raises(GateFullError) as refused, gate.enter():
            pass
    assert refused.value.retry_after_s == MAX_WAIT_S
