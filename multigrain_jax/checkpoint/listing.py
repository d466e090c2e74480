"""What a checkpoint holds, leaf by leaf."""

from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.checkpoint.loading import (
    load_average,
    load_checkpoint,
    load_optimizer_arrays,
)
from multigrain_jax.trees import flatten_nested, json_digest, leaf_digests


class Leaf(NamedTuple):
    """One array of a checkpoint: where it is, what it is, and its digest."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    digest: str


class Description(NamedTuple):
    """A verified checkpoint's leaves, the digest of them all, and its meta."""

    path: Path
    leaves: list[Leaf]
    digest: str
    meta: dict[str, Any]


def describe_checkpoint(path: str | Path, *, step: int | None = None) -> Description:
    """Read and verify every item of a checkpoint and list its leaves.

    Args:
        path: a workdir or a step folder.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: nothing there, or damage.
    """
    checkpoint = load_checkpoint(path, step=step)
    items = {"model": checkpoint.model}
    average = load_average(checkpoint)
    if average is not None:
        items["ema"] = average
    if "optimizer" in checkpoint.digests:
        items["optimizer"] = load_optimizer_arrays(checkpoint)
    leaves = [
        Leaf(f"{item}.{key}", str(leaf.dtype), leaf.shape, leaf.nbytes, digest)
        for item, nested in items.items()
        for (key, leaf), digest in zip(
            flatten_nested(nested).items(), leaf_digests(nested).values(), strict=True
        )
    ]
    everything = json_digest({leaf.path: leaf.digest for leaf in leaves})
    return Description(checkpoint.path, leaves, everything, checkpoint.meta)
