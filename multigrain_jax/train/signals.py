"""Being asked to stop, by the user or by whoever wants the machine back."""

import math
import signal
import time
from collections.abc import Callable
from typing import Any


class StopSignals:
    """While active, SIGTERM, SIGINT and SIGHUP ask the run to save and leave.

    SIGHUP is what a terminal sends that is closed; `nohup` has it ignored, and that
    stays. Entering gives a function that tells whether leaving was asked.
    """

    def __enter__(self) -> Callable[[], bool]:
        self._requested = False
        self._previous = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        return lambda: self._requested

    def _request(self, number: int, frame: Any) -> None:
        self._requested = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class TimeLimit:
    """Tells when a run has to leave in order to be gone before a deadline.

    It is to be asked after every step, and keeps twice the longest time between two
    questions, and twice that of a save, in reserve.
    """

    def __init__(
        self,
        hours: float | None,
        *,
        started: float,
        save_seconds: Callable[[], float],
    ):
        """Set the deadline.

        Args:
            hours: how long the run may last (None: for ever).
            started: when it began, by `time.perf_counter`.
            save_seconds: how long the longest save has taken.
        """
        self._end = math.inf if hours is None else started + 3600 * hours
        self._save_seconds = save_seconds
        self._last = time.perf_counter()
        self._longest = 0.0

    def reached(self) -> bool:
        """Whether it is time to save and leave."""
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        return now + 2 * (self._longest + self._save_seconds()) >= self._end
