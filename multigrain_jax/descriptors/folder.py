"""A folder of descriptors on disk: what is in it, and how it is read.

    shard-00000.npy …   float32 or float16 [n, D]
    index.csv           path, size, mtime_ns, shard, row, status: a line per image
    descriptors.json    what made the descriptors, and how much of the above counts

writer.py writes it. What descriptors.json does not count is half done.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.errors import InputError
from multigrain_jax.workdir import open_csv

FORMAT_VERSION = 1
DESCRIPTOR_FOLDER = "descriptors"  # in the workdir of the task `embed`
HEAD_FILE = "descriptors.json"
INDEX_FILE = "index.csv"
DTYPES = ("float32", "float16")

OK = "ok"
# The status of lines whose descriptors no longer count.
VANISHED = "vanished"
REPLACED = "replaced by a newer file"


class DescriptorSettings(NamedTuple):
    """What all descriptors of a folder have in common.

    Attributes:
        dim: D.
        dtype: one of `DTYPES`.
        model_digest: of the checkpoint's arrays.
        backbone: its name.
        pooling_exponent: p of the GeM pooling.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        whitened: whether the model whitens.
    """

    dim: int
    dtype: str
    model_digest: str
    backbone: str
    pooling_exponent: float
    test_size: int
    test_mode: str
    whitened: bool


class ImageStamp(NamedTuple):
    """An image file as it was when it was looked at."""

    path: str
    size: int
    mtime_ns: int


class IndexRow(NamedTuple):
    """One line of index.csv.

    Attributes:
        image: the file.
        shard: number of the shard; None where there is no descriptor.
        row: row of the shard.
        status: "ok", or why the image has no descriptor that counts.
    """

    image: ImageStamp
    shard: int | None
    row: int | None
    status: str


class Head(NamedTuple):
    """What descriptors.json says.

    Attributes:
        settings: how the descriptors were made.
        num_rows: lines of index.csv that count, the header not among them.
        num_shards: shards that count.
        num_finished_rows: lines that were there before the run that is under way.
    """

    settings: DescriptorSettings
    num_rows: int
    num_shards: int
    num_finished_rows: int


def read_head(folder: Path) -> Head:
    """What descriptors.json of a folder says.

    Raises:
        InputError: no such file, or one of another format.
    """
    path = folder / HEAD_FILE
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: a folder of descriptors was expected, and reading {HEAD_FILE} "
            f"failed: {error}; the task `embed` makes one"
        ) from error
    version = values.pop("format_version", None) if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version {version} found, {FORMAT_VERSION} expected; embed "
            "the images anew, into another folder"
        )
    try:
        counts = [int(values.pop(name)) for name in Head._fields[1:]]
        values["pooling_exponent"] = float(values["pooling_exponent"])
        return Head(DescriptorSettings(**values), *counts)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not what the task `embed` writes ({type(error).__name__}: "
            f"{error}); if it was edited, undo that, or embed the images anew, into "
            "another folder"
        ) from error


def read_index(folder: Path, num_rows: int) -> Iterator[IndexRow]:
    """The first `num_rows` lines of index.csv, one after the other.

    Raises:
        InputError: a line that `embed` did not write so.
    """
    with open_csv(folder / INDEX_FILE, "r") as file:
        lines = csv.reader(file)
        next(lines, None)
        for number, line in enumerate(islice(lines, num_rows), start=2):
            try:
                yield _index_row(line)
            except ValueError as error:
                raise InputError(
                    f"{folder / INDEX_FILE}, row {number}: {line} found, path, size, "
                    "mtime_ns, shard, row and status expected; if it was edited, undo "
                    "that, or embed the images anew, into another folder"
                ) from error


def _index_row(line: Sequence[str]) -> IndexRow:
    path, size, mtime_ns, shard, row, status = line
    return IndexRow(
        ImageStamp(path, int(size), int(mtime_ns)),
        int(shard) if shard else None,
        int(row) if row else None,
        status,
    )


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05d}.npy"


def require_same_settings(
    found: DescriptorSettings, expected: DescriptorSettings, *, folder: Path
) -> None:
    """Check that descriptors can be compared with those of a folder.

    Raises:
        InputError: they were made otherwise; the message lists every difference.
    """
    differences = [
        f"{name}: the folder has {there}, this run {here}"
        for name, there, here in zip(
            DescriptorSettings._fields, found, expected, strict=True
        )
        if there != here
    ]
    if differences:
        raise InputError(
            f"{folder} holds descriptors that were made otherwise, which no inner "
            "product compares; use the same model and sizes, or another workdir\n  "
            + "\n  ".join(differences)
        )
