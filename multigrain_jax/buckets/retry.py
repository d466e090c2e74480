"""Waiting for a storage behind a network: for a while, and not in silence."""

import errno
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from multigrain_jax.errors import printable

Result = TypeVar("Result")
_QUERY = re.compile(r"\?[^\s'\"()]+=[^\s'\"()]*")

# How long one request is tried for, the pauses between, and the wait worth a line.
PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
TOLD_AFTER_S = 5.0
# A connection that is refused or silent, and an answer that stops.
CONNECT_S = 10.0
READ_S = 60.0
# Too many requests, a request that came too late, a conflict of two, a fault inside.
PASSING_CODES = (408, 409, 429, 500, 502, 503, 504)


class PassingFault(Exception):
    """The storage has not answered, or not with what it was asked for."""


def in_short(error: BaseException | str) -> str:
    """What a library says, without what follows the question mark of an address.

    The address of an upload in several requests is all that is needed to go on with it.
    """
    kind = "" if isinstance(error, str) else f"{type(error).__name__}: "
    return (kind + " ".join(_QUERY.sub("?…", str(error)).split()))[:300]


def persist(call: Callable[[bool], Result], place: str) -> Result:
    """What `call` returns, which is called again while the storage fails.

    Args:
        call: the request; its argument tells whether an earlier try may have been
            carried out although no answer came.
        place: the address, for errors.

    Raises:
        OSError: `errno.ETIMEDOUT`, after `PATIENCE_S` seconds of faults.
        Exception: whatever else `call` raises.
    """
    start, pause, again, told = time.monotonic(), FIRST_PAUSE_S, False, False
    while True:
        try:
            return call(again)
        except PassingFault as fault:
            waited = time.monotonic() - start
            reason = printable(str(fault))
            if waited + pause > PATIENCE_S:
                raise OSError(
                    errno.ETIMEDOUT,
                    f"no answer of the storage for {waited:.0f} s ({reason})",
                    place,
                ) from fault
            if waited > TOLD_AFTER_S and not told:
                told = True
                print(
                    f"{place}: {reason}; tried again for up to {PATIENCE_S:.0f} s",
                    flush=True,
                )
        again = True
        # Many hosts that were told to come back do not come all at once.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE_S)
