"""What a call takes of memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any


def peak_bytes(function: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    """What a call takes at most, beside its arguments, of what Python counts."""
    tracemalloc.start()
    try:
        function(*arguments, **named)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
