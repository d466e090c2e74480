"""What a set of images is, in a few digests: the same set has the same ones."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from multigrain_jax.data.sources.source import ImageSource

# On a network's disk each file is a question that waits for its answer.
THREADS = 32
FILES_AT_ONCE = 4096
UNKNOWN_SIZE = -1


def data_digest(source: ImageSource, *, root: str | Path | None) -> dict[str, str]:
    """Digests of the `names`, `sizes` and `labels` of a set of images, in its order.

    And of its `instances`, where they are known.

    Names are paths relative to `root`, so that a set that was moved stays the same.
    What is no file of its own (a record of a data set) has a name alone, or the size
    that its source knows.
    """
    names = [source.describe(index) for index in range(len(source))]
    stamps = [source.stamp(index) for index in range(len(source))]
    if all(stamp is not None for stamp in stamps):
        sizes = [stamp[0] for stamp in stamps if stamp is not None]
    else:
        starts = range(0, len(names), FILES_AT_ONCE)
        parts = [names[start : start + FILES_AT_ONCE] for start in starts]
        with ThreadPoolExecutor(THREADS) as pool:
            sizes = [size for part in pool.map(_sizes, parts) for size in part]
    prefix = "" if root is None else str(Path(os.path.expanduser(root)))
    relative = (name.removeprefix(prefix) for name in names)
    known = {} if source.instances is None else {"instances": source.instances}
    return {
        "names": _digest(b"\0".join(os.fsencode(name) for name in relative)),
        "sizes": _digest(np.array(sizes, "<i8").tobytes()),
        "labels": _digest(np.asarray(source.labels).astype("<i4").tobytes()),
        **{name: _digest(a.astype("<i4").tobytes()) for name, a in known.items()},
    }


def _sizes(paths: Sequence[str]) -> list[int]:
    found = []
    for path in paths:
        try:
            found.append(os.stat(path).st_size)
        except (OSError, ValueError):
            found.append(UNKNOWN_SIZE)
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
