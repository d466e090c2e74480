"""Descriptors that a workdir of `embed` holds, and those of photos one by one."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import multigrain_jax
from multigrain_jax.descriptors.folder import OK, read_head, shard_path
from multigrain_jax.descriptors.index_file import read_index


def stored_descriptors(workdir: Path) -> dict[str, np.ndarray]:
    """The descriptor of every photo that has one, by the photo's path."""
    folder = workdir / "descriptors"
    return {
        row.image.path: np.load(shard_path(folder, row.shard))[row.row]
        for row in read_index(folder, read_head(folder).num_rows)
        if row.status == OK and row.shard is not None
    }


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def embeddings(
    checkpoint: Path,
    paths: Sequence[Path],
    *,
    sizes: Sequence[int],
    mode: str = "rect",
    turn: int = 0,
    exponent: float | None = None,
) -> list[np.ndarray]:
    """The mean embedding of each photo alone, and its unit length."""
    model = multigrain_jax.load_model(checkpoint, pooling_exponent=exponent)
    rows = []
    for path in paths:
        with Image.open(path) as photo:
            turned = photo.rotate(-turn, expand=True)
            pixels = [model.preprocess(turned, size, mode) for size in sizes]
        each = [np.asarray(model(image[None]).embedding[0]) for image in pixels]
        rows.append(np.mean(each, axis=0))
    return [row / np.linalg.norm(row) for row in rows]
