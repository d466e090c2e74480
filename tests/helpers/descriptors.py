"""What a workdir of `embed` holds, read plainly."""

import csv
from pathlib import Path

import numpy as np

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
