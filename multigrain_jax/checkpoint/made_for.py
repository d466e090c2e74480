"""At which size a checkpoint's network is at its best, as far as it is recorded."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class MadeFor(NamedTuple):
    """How photos are best given to a network.

    Attributes:
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.
        origin: where this is known from, in words.
    """

    test_size: int
    test_mode: str
    pooling_exponent: float | None
    origin: str


def made_for(meta: Mapping[str, Any], *, default_size: int) -> MadeFor:
    """The size and mode that a checkpoint's record names.

    That is what it was trained or fine-tuned for, else what was published of it, else
    what its backbone was designed for.

    Args:
        meta: of the checkpoint.
        default_size: the backbone's, in pixels.
    """
    trained = meta.get("config")
    if isinstance(trained, Mapping) and _is_size(trained.get("test_size")):
        mode = _mode(trained.get("test_mode"))
        return MadeFor(trained["test_size"], mode, None, "as it was trained")
    published = meta.get("published")
    search = published.get("search") if isinstance(published, Mapping) else None
    if isinstance(search, Mapping) and _is_size(search.get("test_size")):
        exponent = search.get("pooling_exponent")
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)):
            exponent = None
        mode = _mode(search.get("test_mode"))
        return MadeFor(search["test_size"], mode, exponent, "as it was published")
    return MadeFor(default_size, "square", None, "the usual one of its backbone")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _mode(value: Any) -> str:
    return value if value in ("square", "rect") else "square"
