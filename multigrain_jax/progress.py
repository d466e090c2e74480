"""How far a piece of work is: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections import deque

from tqdm import tqdm

# Between two lines where there is no terminal.
SECONDS_BETWEEN_LINES = 30.0
# The rate is that of so many moments, the last of which is now.
_WINDOW = 8


class _Asked:
    quiet = False


def be_quiet() -> None:
    """Show no progress from now on."""
    _Asked.quiet = True


def has_bar() -> bool:
    """Whether somebody is there to watch a bar, and wants to."""
    return sys.stderr.isatty() and not _Asked.quiet


class Pace:
    """When a piece of work will be done, by how fast it was of late."""

    def __init__(self, total: int):
        """Start the clock.

        Args:
            total: how much there is to do.
        """
        self._total = total
        self._moments: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def seen(self, done: int) -> None:
        """Remember how much is done now."""
        self._moments.append((done, time.monotonic()))

    def rate(self) -> float | None:
        """How much is done in a second; None: it cannot be told yet."""
        if len(self._moments) < 2:
            return None
        (first, since), (last, until) = self._moments[0], self._moments[-1]
        return (last - first) / (until - since) if last > first else None

    def left(self) -> str:
        """`, 4 min left`, or nothing while that cannot be told."""
        rate = self.rate()
        if rate is None:
            return ""
        remaining = self._total - self._moments[-1][0]
        return f", {duration(remaining / rate)} left" if remaining > 0 else ""


class Progress:
    """Tells how far a loop is, on standard error; `close` it at the end."""

    def __init__(self, total: int, *, what: str, is_shown: bool):
        """Show a bar, if a terminal is there to see it.

        Args:
            total: how many there are.
            what: of what, in the plural.
            is_shown: False: nothing is; of several hosts the first one tells.
        """
        self._total, self._what = total, what
        self._is_shown = is_shown and not _Asked.quiet
        self._pace = Pace(total)
        self._done = 0
        self._pace.seen(0)
        self._told = time.monotonic()
        self._bar = (
            tqdm(total=total, unit=f" {what}", dynamic_ncols=True, leave=False)
            if is_shown and has_bar()
            else None
        )

    def add(self, count: int) -> None:
        """So many more are done."""
        # No more than there are: a batch may be filled up.
        count = min(count, self._total - self._done)
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if not self._is_shown:
            return
        if now - self._told >= SECONDS_BETWEEN_LINES and self._done < self._total:
            self._told = now
            self._pace.seen(self._done)
            rate = self._pace.rate()
            speed = "" if rate is None else f", {rate:.3g} a second"
            print(
                f"{self._done} of {self._total} {self._what}{speed}{self._pace.left()}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """A time to wait, as people say it: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
