"""Tries again what may only be a passing fault of the storage."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# Seconds before each of the further attempts.
PAUSES = (0.05, 0.2, 0.4)


class Patience:
    """How long a process waits for a storage, in all: some seconds and a small share.

    So files that are gone for good cost little, however many they are.
    """

    def __init__(self, *, seconds: float = 5.0, share: float = 0.02):
        """Start with `seconds`, to which comes a share of the time that passes."""
        self._seconds, self._share = seconds, share
        self._waited = 0.0
        self._since: float | None = None

    def wait(self, seconds: float) -> bool:
        """Sleep, or return False at once where that has been done too long already."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if self._waited + seconds > self._seconds + self._share * (now - self._since):
            return False
        self._waited += seconds
        time.sleep(seconds)
        return True


PATIENCE = Patience()


def patiently(read: Callable[[], Result], *, patience: Patience = PATIENCE) -> Result:
    """What `read` returns, which is tried again where the system reports an error.

    An error without a number is no error of the system, but of what was read.

    Args:
        read: reads something.
        patience: how long to wait, of all calls together.

    Raises:
        OSError: what the last attempt has raised.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno is None or not patience.wait(pause):
                raise
    return read()
