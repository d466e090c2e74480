"""Who reads which network's file, and how a file is known to be one's."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from multigrain_jax.convert.heads import cirtorch, deep_image_retrieval, sscd
from multigrain_jax.convert.heads.foreign import ForeignModel, HeadOptions, Weights
from multigrain_jax.convert.unwrap import FLOATS
from multigrain_jax.errors import InputError

NO_HEAD = "none"
BY_HAND = "as asked for"


class HeadReader(NamedTuple):
    """One kind of file.

    Attributes:
        recognises: how it is known that these are its weights, in words; or None.
        read: its weights in this package's terms.
    """

    recognises: Callable[[Weights], str | None]
    read: Callable[[Weights, HeadOptions], ForeignModel]


# What their files have beside the state dict.
ENTRIES = (cirtorch.ENTRY, *deep_image_retrieval.ENTRIES)
HEADS: dict[str, HeadReader] = {
    reader.ORIGIN: HeadReader(reader.recognises, reader.read)
    for reader in (sscd, cirtorch, deep_image_retrieval)
}


def find_head(
    weights: Weights, *, name: str | None, options: HeadOptions
) -> tuple[ForeignModel, str] | None:
    """Another network's weights in this package's terms, and how they are known.

    Args:
        weights: what the file holds.
        name: whose they are, a key of `HEADS`; None: what the file says itself; "none":
            nobody's.
        options: what is chosen of what the file has.

    Returns:
        None if they are nobody's.

    Raises:
        InputError: another name, a file that is not as that network's are, or options
            of a head where there is none.
    """
    if name not in (None, NO_HEAD, *HEADS):
        raise InputError(
            f"head: found {name!r}, expected one of {', '.join(HEADS)}, or {NO_HEAD}"
        )
    known = {n: BY_HAND for n in HEADS if n == name}
    if name is None:
        said = {n: reader.recognises(weights) for n, reader in HEADS.items()}
        known = {n: how for n, how in said.items() if how is not None}
    if not known:
        if options != HeadOptions():
            raise InputError(
                f"{weights.name}: options of a whitening were given, and no descriptor "
                f"head of {', '.join(HEADS)} was found; leave them out, or say whose "
                "the file is with --head"
            )
        return None
    origin, how = next(iter(known.items()))
    if len(weights.bare) < len(weights.tensors):
        raise InputError(
            f"{weights.name}: two networks were found in the file, one was expected of "
            f"{origin}; save the state dict of the one that is meant"
        )
    foreign = HEADS[origin].read(weights, options)
    of_trunk = {id(value) for value in foreign.trunk.values()}
    types = Counter(
        value.dtype.name for value in weights.bare.values() if id(value) not in of_trunk
    )
    cast = {name: types[name] for name in FLOATS if name != "float32" and types[name]}
    return replace(foreign, cast=cast), how
