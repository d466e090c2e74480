"""How many photos are under way at once: the bound that keeps a server alive."""

import contextlib
import math
import threading
import time
from collections.abc import Generator

# What a client is told to wait, in seconds.
MIN_WAIT_S, MAX_WAIT_S = 1, 30
# How much a new measurement of the pace counts.
WEIGHT = 0.1


class GateFullError(Exception):
    """No more is taken now.

    Attributes:
        retry_after_s: when to come again, in whole seconds.
    """

    def __init__(self, retry_after_s: int):
        super().__init__(f"the queue is full; come again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Gate:
    """Lets so many requests in, and so many bytes that they hold; the rest waits.

    Attributes:
        inside: how many requests are in.
    """

    def __init__(self, *, max_requests: int, max_bytes: int):
        """Be open.

        Args:
            max_requests: that are in at once.
            max_bytes: that all of them may hold.
        """
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._seconds_per_request = 0.1
        self._left_at = time.monotonic()
        self._bytes = 0
        self.inside = 0

    @contextlib.contextmanager
    def enter(self) -> Generator["Place"]:
        """Be in within this context.

        Raises:
            GateFullError: there are too many.
        """
        with self._lock:
            if self.inside >= self._max_requests:
                raise GateFullError(self._wait())
            self.inside += 1
        place = Place(self)
        try:
            yield place
        finally:
            with self._lock:
                self.inside -= 1
                self._bytes -= place.held
                now = time.monotonic()
                # Where nobody was waiting, the pause says nothing of the pace.
                if self.inside:
                    pace = now - self._left_at
                    self._seconds_per_request += WEIGHT * (
                        pace - self._seconds_per_request
                    )
                self._left_at = now

    def hold(self, count: int) -> None:
        """Count bytes that a request holds from now on."""
        with self._lock:
            if self._bytes + count > self._max_bytes:
                raise GateFullError(self._wait())
            self._bytes += count

    def _wait(self) -> int:
        seconds = math.ceil(self._seconds_per_request * self.inside)
        return min(MAX_WAIT_S, max(MIN_WAIT_S, seconds))


class Place:
    """What one request has of a gate.

    Attributes:
        held: its bytes.
    """

    def __init__(self, gate: Gate):
        self._gate = gate
        self.held = 0

    def hold(self, count: int) -> None:
        """Have so many bytes more.

        Raises:
            GateFullError: all requests together hold too many.
        """
        self._gate.hold(count)
        self.held += count
