"""How far a piece of work is: rates, times left, lines and bars."""

import io
import sys

import pytest

from multigrain_jax import progress
from multigrain_jax.progress import Pace, Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """The time, which only a test moves."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress._Asked, "quiet", False)
    return now


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "1 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "60 min"),
        (5400, "1 h 30 min"),
        (100_000, "27 h 47 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_are_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_a_pace_is_that_of_late(clock):
    pace = Pace(10_000)
    pace.seen(0)
    assert pace.rate() is None and pace.left() == ""
    # A slow start is forgotten.
    for done in range(1, 20):
        clock[0] += 100 if done < 5 else 1
        pace.seen(10 * done)
    assert pace.rate() == pytest.approx(10)
    assert pace.left() == ", 16 min left"


def test_a_pace_that_stands_still_says_nothing(clock):
    pace = Pace(10)
    pace.seen(3)
    clock[0] += 1
    pace.seen(3)
    assert pace.rate() is None and pace.left() == ""


def test_lines_come_now_and_then_where_there_is_no_terminal(clock, capsys):
    shown = Progress(1000, what="photos", is_shown=True)
    for _ in range(10):
        clock[0] += 10
        shown.add(100)
    shown.close()
    assert capsys.readouterr().err.splitlines() == [
        "300 of 1000 photos, 10 a second, 70 s left",
        "600 of 1000 photos, 10 a second, 40 s left",
        "900 of 1000 photos, 10 a second, 10 s left",
    ]


def test_a_bar_never_says_more_than_there_is(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress(10, what="photos", is_shown=True)
    for _ in range(4):
        clock[0] += 1
        shown.add(4)
    assert shown._bar.n == 10
    shown.close()


@pytest.mark.parametrize("is_shown", [False, True])
def test_quiet_is_quiet(clock, capsys, is_shown):
    if is_shown:
        progress.be_quiet()
    shown = Progress(1000, what="photos", is_shown=is_shown)
    clock[0] += 100
    shown.add(10)
    assert capsys.readouterr().err == ""
