"""What a set of images is, in a few digests: the same set has the same ones."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.sources.source import ImageSource

# On a network's disk each file is a question that waits for its answer.
THREADS = 32
FILES_AT_ONCE = 4096
UNKNOWN_SIZE = -1


def data_digest(source: ImageSource, *, root: str | Path | None) -> dict[str, str]:
    """Digests of the `names`, `sizes` and `labels` of a set of images, in its order.

    And of its `instances`, where they are known.

    Names are paths relative to `root`, so that a set that was moved stays the same.
    What is no file of its own (a record of a data set) has a name alone.
    """
    count = len(source)
    names = [source.describe(index) for index in range(count)]
    numbers = range(count)
    parts = [numbers[i : i + FILES_AT_ONCE] for i in range(0, count, FILES_AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        each = pool.map(partial(_sizes, source), parts)
        sizes = [size for part in each for size in part]
    prefix = "" if root is None else str(as_path(root))
    relative = (name.removeprefix(prefix) for name in names)
    known = {} if source.instances is None else {"instances": source.instances}
    return {
        "names": _digest(b"\0".join(os.fsencode(name) for name in relative)),
        "sizes": _digest(np.array(sizes, "<i8").tobytes()),
        "labels": _digest(np.asarray(source.labels).astype("<i4").tobytes()),
        **{name: _digest(a.astype("<i4").tobytes()) for name, a in known.items()},
    }


def _sizes(source: ImageSource, indices: Iterable[int]) -> list[int]:
    stamps = (source.stamp(index) for index in indices)
    return [UNKNOWN_SIZE if stamp is None else stamp.size for stamp in stamps]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
