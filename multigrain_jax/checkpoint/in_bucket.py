"""Checkpoints that lie in a bucket, as copies on this machine."""

import re
from pathlib import Path

from multigrain_jax import buckets
from multigrain_jax.bucket_copies import Wanted, copy_of

CHECKPOINTS_FOLDER = "checkpoints"
_STEP = re.compile("0|[1-9][0-9]*")
# Written as the last object of a checkpoint, and deleted as the first.
_LAST = "meta/metadata"


def on_this_machine(path: str | Path, *, step: int | None) -> Path:
    """A path as it is; of a bucket a copy of one checkpoint there.

    Beside it are empty folders of the other steps, by which it is told which there are.

    Args:
        path: a workdir, its folder of checkpoints, or a step folder.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: it is written to again and again while it is read.
        OSError: the storage does not answer.
    """
    if not buckets.is_bucket(path):
        return Path(path)
    url = buckets.normalize(path)
    above, _, name = url.rpartition("/")
    # The names of these two tell what they are.
    if _STEP.fullmatch(name) or name == CHECKPOINTS_FOLDER:
        return _copy(url, step, at=above, own=f"{name}/") / name
    return _copy(url, step, at=url, own="")


def _copy(url: str, step: int | None, *, at: str, own: str) -> Path:
    """A copy of an address, in which names begin with `own`."""
    inside = "" if own == f"{CHECKPOINTS_FOLDER}/" else f"{CHECKPOINTS_FOLDER}/"

    def choose(found: dict[str, buckets.Status]) -> Wanted:
        if any(name.startswith("model/") for name in found):
            return {own + name: status for name, status in found.items()}, []
        names = (n.removeprefix(inside) for n in found if n.startswith(inside))
        places = (name.partition("/") for name in names)
        steps = {int(s) for s, _, n in places if _STEP.fullmatch(s) and n == _LAST}
        chosen = step if step is not None else max(steps, default=None)
        if chosen not in steps:
            chosen = None
        wanted = {
            own + name: status
            for name, status in found.items()
            if name.startswith(f"{inside}{chosen}/")
        }
        return wanted, [own + inside + str(each) for each in sorted(steps)]

    # Whoever reads a checkpoint compares the digest of each array.
    return copy_of(url, choose, is_whole=lambda _: True, at=at)
