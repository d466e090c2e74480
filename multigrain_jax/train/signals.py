"""Being asked to stop, by the user or by whoever wants the machine back."""

import signal
from collections.abc import Callable
from typing import Any


class StopSignals:
    """While active, SIGTERM and SIGINT ask the run to save and leave.

    Entering gives a function that tells whether that was asked.
    """

    def __enter__(self) -> Callable[[], bool]:
        self._requested = False
        self._previous = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return lambda: self._requested

    def _request(self, number: int, frame: Any) -> None:
        self._requested = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
