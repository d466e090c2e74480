"""Where the photos of a large file are: found once, and kept in a small file."""

import contextlib
import hashlib
import io
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax import buckets
from multigrain_jax.data.bucket_paths import (
    ADDRESSES,
    BucketPath,
    absolute_path,
    as_path,
)
from multigrain_jax.data.cache import cache_folder, write_whole
from multigrain_jax.data.sources.random_access import Stamp, stamp_file
from multigrain_jax.errors import InputError, printable

INDEX_SUFFIX = ".multigrain-index"
VERSION = 1
THREADS, ASKING_THREADS = 4, 16
TELL_EVERY_S = 30.0
# Of each photo: where what it is stored in begins and how long that is; as how much
# that is unpacked (0: it is not packed), and where the photo is in that. Of what is
# not found so, `stored` is 0: `offset` is the row group, `unpacked` its size, and
# `start` the row in it.
PLACE = np.dtype(
    [
        ("offset", "<i8"),
        ("stored", "<i4"),
        ("unpacked", "<i4"),
        ("start", "<i4"),
        ("length", "<i4"),
    ]
)
# The length of a photo that is not there, and the label of one that has none.
ABSENT = -1
NUMBERS, NAMES, NO_LABELS = "numbers", "names", "none"
# What reading an index raises that is not there, of something else, or damaged.
DAMAGES = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_TEXTS = ("label_texts", "names", "class_names", "remarks")


@dataclass(frozen=True)
class ShardIndex:
    """What one large file holds.

    Attributes:
        places: where the photos are, `PLACE` [N].
        labels: int32 [N], which of `label_texts`; -1: none.
        label_texts: the distinct labels, as text.
        label_kind: what the labels are: `NUMBERS`, `NAMES` or `NO_LABELS`.
        codec: how photos are packed, as PyArrow calls it; "": they are not.
        names: of the photos; empty: their numbers.
        class_names: of the classes, in the order of their numbers; empty: not known.
        remarks: what was passed over, a line each.
    """

    places: np.ndarray
    labels: np.ndarray
    label_texts: Sequence[str]
    label_kind: str
    codec: str
    names: Sequence[str]
    class_names: Sequence[str]
    remarks: Sequence[str]

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self.places)


def index_shards(
    paths: Sequence[str], *, make: Callable[[str, Stamp], ShardIndex], kind: str
) -> list[tuple[Stamp, ShardIndex]]:
    """The stamp and the index of each file, which is made where it is not kept yet.

    Args:
        paths: the files.
        make: makes the index of one.
        kind: a word for the format.

    Raises:
        InputError: a file cannot be read, or is not what it should be.
    """
    with ThreadPoolExecutor(ASKING_THREADS) as pool:
        stamps = list(pool.map(_stamp, paths))
        found = list(pool.map(load_index, paths, stamps, [kind] * len(paths)))
    missing = [number for number, index in enumerate(found) if index is None]
    if missing:
        gigabytes = sum(stamps[number].size for number in missing) / 1e9
        print(
            f"looking once where the photos are in {len(missing)} {kind} files "
            f"({gigabytes:.1f} GB) …",
            flush=True,
        )

        def make_and_keep(number: int) -> ShardIndex:
            index = make(paths[number], stamps[number])
            _keep(paths[number], stamps[number], kind, index)
            return index

        told = time.monotonic()
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            for count, (number, index) in enumerate(
                zip(missing, pool.map(make_and_keep, missing), strict=True), start=1
            ):
                found[number] = index
                if time.monotonic() - told > TELL_EVERY_S:
                    told = time.monotonic()
                    print(f"{count} of {len(missing)} files", flush=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [
        (stamp, index)
        for stamp, index in zip(stamps, found, strict=True)
        if index is not None
    ]


def load_index(path: str, stamp: Stamp, kind: str) -> ShardIndex | None:
    """The index that is kept of a file in its present state; None: there is none."""
    for place in _places_of_index(path, kind):
        with contextlib.suppress(*DAMAGES):
            data = place.read_bytes()
            index = _parse(data, stamp, kind)
            if isinstance(place, BucketPath):
                _write(_in_cache(path, kind), data)
            return index
    return None


def _places_of_index(path: str, kind: str) -> tuple[Path, Path]:
    """Where an index may be: beside its file, and in the user's cache."""
    beside = as_path(f"{path}{INDEX_SUFFIX}")
    inside = _in_cache(path, kind)
    return (inside, beside) if isinstance(beside, BucketPath) else (beside, inside)


def _in_cache(path: str, kind: str) -> Path:
    key = f"{kind}\0{absolute_path(path)}"
    name = hashlib.sha256(os.fsencode(key)).hexdigest()
    return cache_folder("shards") / f"{name}.npz"


def _write(place: Path, data: bytes) -> bool:
    """Write an index, where that can be done; whether it was."""
    try:
        if isinstance(place, BucketPath):
            buckets.write_bytes(str(place), data)
        else:
            write_whole(place, data)
    except (OSError, InputError):
        return False
    return True


def _stamp(path: str) -> Stamp:
    try:
        return stamp_file(path)
    except OSError as error:
        raise InputError(
            f"{printable(path)}: a file was expected, and looking at it failed: "
            f"{error.strerror or error}; copy it again"
        ) from error


def _keep(path: str, stamp: Stamp, kind: str, index: ShardIndex) -> None:
    encoded = io.BytesIO()
    texts = {name: _joined(getattr(index, name)) for name in _TEXTS}
    arrays: dict[str, Any] = dict(
        version=np.array(VERSION),
        kind=np.array(kind),
        stamp=np.array(stamp[:2], np.int64),
        places=index.places,
        labels=index.labels,
        label_kind=np.array(index.label_kind),
        codec=np.array(index.codec),
        **texts,
    )
    np.savez_compressed(encoded, **arrays)
    data, kept = encoded.getvalue(), False
    for place in _places_of_index(path, kind):
        # Beside a file it is enough; beside an object other hosts find it, too.
        kept = _write(place, data) or kept
        if kept and not path.startswith(ADDRESSES):
            return
    if kept:
        return
    print(f"where the photos of {printable(path)} are could not be kept", flush=True)


def _joined(texts: Sequence[str]) -> np.ndarray:
    data = "".join(f"{text}\0" for text in texts).encode(errors="surrogateescape")
    return np.frombuffer(data, np.uint8)


def _split(data: np.ndarray) -> list[str]:
    return data.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def _parse(data: bytes, stamp: Stamp, kind: str) -> ShardIndex:
    """What a kept index says; ValueError for another state of the file, or damage."""
    # Not by its name: NumPy leaves a damaged file open.
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        state = (int(stored["version"]), str(stored["kind"]), *stored["stamp"])
        if state != (VERSION, kind, *stamp[:2]):
            raise ValueError("an index of something else")
        places, labels = stored["places"], stored["labels"]
        texts = {name: _split(stored[name]) for name in _TEXTS}
        index = ShardIndex(
            places=places,
            labels=labels,
            label_kind=str(stored["label_kind"]),
            codec=str(stored["codec"]),
            **texts,
        )
    if (
        places.dtype != PLACE
        or labels.shape != places.shape
        or labels.dtype != np.int32
        or len(index.names) not in (0, len(places))
        or np.any((labels < -1) | (labels >= len(index.label_texts)))
        or np.any(places["offset"] + places["stored"] > stamp.size)
    ):
        raise ValueError("a damaged index")
    return index
