"""Folders of made-up descriptors, which need no network."""

import time
from pathlib import Path

import numpy as np

from multigrain_jax.descriptors.folder import OK, DescriptorSettings, ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.writer import DescriptorWriter

SETTINGS = DescriptorSettings(
    dim=3,
    dtype="float16",
    model_digest="d",
    backbone="tiny",
    pooling_exponent=float("inf"),
    test_size=64,
    test_mode="rect",
    whitened=False,
)
BATCH = 3


def stamps(count: int, *, mtime_ns: int = 5) -> list[ImageStamp]:
    """Images of names as hostile as file systems allow; every fifth is unreadable."""
    hostile = ['a,b\n"c"\r\'', "ü\udcff", "=1+1", "\\xff", ""]
    return [
        ImageStamp(f"/p/{hostile[i % 5]}{i}.jpg", 100 + i, mtime_ns)
        for i in range(count)
    ]


def descriptor(image: ImageStamp) -> np.ndarray:
    """A vector [3] that tells images apart."""
    value = sum(image.path.encode("utf-8", "surrogateescape")) + image.mtime_ns
    return np.array([value % 7, value % 11, value % 13], np.float32)


def status(image: ImageStamp) -> str:
    """Whether it could be read."""
    return "truncated, at byte 5" if image.size % 5 == 0 else OK


def embed(
    folder: Path,
    images: list[ImageStamp],
    *,
    settings: DescriptorSettings = SETTINGS,
    rows_per_shard: int = 4,
    pause: float = 0.0,
) -> list[ImageStamp]:
    """What the task does; returns the images that were added, the last one first."""
    writer = DescriptorWriter(folder, settings, rows_per_shard=rows_per_shard)
    # An order that depends on all images.
    order, done = writer.begin(images, lambda indices: indices[::-1])
    for start in range(done, len(order), BATCH):
        batch = [images[index] for index in order[start : start + BATCH]]
        writer.add(
            batch,
            np.stack([descriptor(image) for image in batch]),
            [status(image) for image in batch],
        )
        time.sleep(pause)
    writer.finish()
    return [images[index] for index in order[done:]]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def all_found(folder: Path) -> dict[str, list[float]]:
    """What a reader makes of a folder: the descriptor of every path that counts."""
    index = DescriptorIndex.open(folder)
    rows = np.flatnonzero(index.live)
    whole = index.read(0, len(index))
    return dict(zip(index.paths(rows), whole[rows].tolist(), strict=True))
