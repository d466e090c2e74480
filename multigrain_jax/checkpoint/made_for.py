"""At which size a checkpoint's network is at its best, as far as it is recorded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from multigrain_jax.data.eval_batches import TEST_MODES

# Of weights that nothing is known of: the paper's of retrieval.
UNKNOWN_SIZE = 500
WHOLE_PHOTO = "rect"
# As `tasks.bounds` has it, which is not to read as much as this.
SMALLEST_SIZE = 32


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


class Recorded(NamedTuple):
    """What a checkpoint's record says of how photos are given to its network.

    Attributes:
        test_sizes: S, in pixels; mostly one.
        test_mode: "square" or "rect".
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.
        published_as: the name of published weights of which this is known; None: the
            run that made the checkpoint says so.
    """

    test_sizes: tuple[int, ...]
    test_mode: str
    pooling_exponent: float | None
    published_as: str | None


class Choice(NamedTuple):
    """How photos are given to a network where nobody says how.

    Attributes:
        test_size: S, in pixels; several in ascending order.
        test_mode: "square" or "rect".
        pooling_exponent: p; None is the checkpoint's.
        origin: where they come from, in words.
    """

    test_size: tuple[int, ...]
    test_mode: str
    pooling_exponent: float | None
    origin: str


def recorded(meta: Mapping[str, Any]) -> Recorded | None:
    """The sizes, mode and p that a checkpoint's record names; None: there are none.

    What it was trained, fine-tuned or whitened with comes before what was published of
    the weights that it was made from: their p is not the one of a fine-tuned network.

    Args:
        meta: of the checkpoint, which anybody may have written.
    """
    trained = meta.get("config")
    if isinstance(trained, Mapping) and (sizes := _sizes(trained.get("test_size"))):
        mode = trained.get("test_mode")
        return Recorded(sizes, mode if mode in TEST_MODES else "square", None, None)
    published = meta.get("published")
    search = published.get("search") if isinstance(published, Mapping) else None
    if not isinstance(published, Mapping) or not isinstance(search, Mapping):
        return None
    sizes, mode = _sizes(search.get("test_size")), search.get("test_mode")
    if not sizes or mode not in TEST_MODES:
        return None
    exponent = _exponent(search.get("pooling_exponent"))
    return Recorded(sizes, mode, exponent, str(published.get("name", "it")))


def made_for(meta: Mapping[str, Any], *, default_size: int) -> MadeFor:
    """The one size and mode that a checkpoint's record names.

    That is as `recorded` has it, else what its backbone was designed for.

    Args:
        meta: of the checkpoint.
        default_size: the backbone's, in pixels.
    """
    found = recorded(meta)
    if found is None or len(found.test_sizes) != 1:
        return MadeFor(default_size, "square", None, "the usual one of its backbone")
    trained = found.published_as is None
    origin = "as it was trained" if trained else "as it was published"
    (size,) = found.test_sizes
    return MadeFor(size, found.test_mode, found.pooling_exponent, origin)


def for_search(meta: Mapping[str, Any]) -> Choice:
    """How photos are best given to a network whose descriptors are compared.

    Args:
        meta: of the checkpoint; of one that says nothing, it is the paper's size.
    """
    found = recorded(meta)
    if found is None:
        origin = "nothing else is known of these weights"
        return Choice((UNKNOWN_SIZE,), WHOLE_PHOTO, None, origin)
    if found.published_as is None:
        # Collections are searched by whole photos, also where centres were scored.
        origin = "the size that it was tested at"
        return Choice(found.test_sizes, WHOLE_PHOTO, None, origin)
    origin = f"what {found.published_as} searches best with"
    return Choice(found.test_sizes, found.test_mode, found.pooling_exponent, origin)


def for_classes(meta: Mapping[str, Any], *, default_size: int) -> Choice:
    """How photos are best given to a network whose classes are asked for.

    Arguments as of `made_for`, which this is in other words.
    """
    best = made_for(meta, default_size=default_size)
    return Choice((best.test_size,), best.test_mode, best.pooling_exponent, best.origin)


def _sizes(value: Any) -> tuple[int, ...]:
    """A size or several as a tuple, which is empty where they are none."""
    sizes = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    are_sizes = all(
        isinstance(size, int) and not isinstance(size, bool) and size >= SMALLEST_SIZE
        for size in sizes
    )
    return sizes if are_sizes else ()


def _exponent(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and value > 0 else None
