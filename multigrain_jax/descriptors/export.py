"""Descriptors as a file of other programs: Parquet."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.descriptors.folder import OK, IndexRow
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.index_file import read_open_index
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name, write_durably

FORMATS = ("float16", "float32")
# The key of the file's metadata with what made the descriptors, as JSON.
METADATA_KEY = "multigrain_jax.descriptors"


def export_parquet(
    database: str | Path,
    destination: Path,
    *,
    dtype: str | None,
    only_live: bool,
    rows_per_group: int,
) -> int:
    """Write a Parquet file whole or not at all; returns how many rows it has.

    Columns: `path` string, as index.csv has it, `status` string, and `descriptor`, a
    list of fixed size D; null where there is none. In memory is one row group.

    Args:
        database: a folder of descriptors, or a workdir of `embed`.
        destination: the file, replaced if it exists.
        dtype: of the numbers, one of `FORMATS`; None: as they are stored.
        only_live: leave out photos that are gone, were replaced or cannot be read.
        rows_per_group: rows of a row group.

    Raises:
        InputError: no descriptors, damage, a place that cannot be written to, or
            pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(
            "pyarrow is not installed, which writes Parquet; pip install pyarrow"
        ) from error
    index = DescriptorIndex.open(database)
    opened, made_with = index.opened, index.settings
    assert opened is not None and made_with is not None  # it was opened from a folder
    if not destination.absolute().parent.is_dir():
        raise InputError(
            f"{destination}: its folder was expected to be there, found none; make it"
        )
    kind = dtype or made_with.dtype
    # JSON has no infinity.
    record = {
        **made_with._asdict(),
        "pooling_exponent": str(made_with.pooling_exponent),
    }
    numbers = pa.float16() if kind == "float16" else pa.float32()
    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("descriptor", pa.list_(numbers, index.dim)),
        ],
        metadata={METADATA_KEY: json.dumps(record)},
    )
    lines = read_open_index(opened.index, opened.head, folder=opened.folder)
    total = 0
    try:
        with (
            write_durably(destination) as file,
            pq.ParquetWriter(file, schema) as writer,
        ):
            for group in _groups(lines, rows_per_group, only_live=only_live):
                writer.write_table(_table(pa, schema, group, index, kind))
                total += len(group)
    except OSError as error:
        raise InputError(
            f"{destination}: it cannot be written ({error.strerror}); mend that place, "
            "or name another"
        ) from error
    return total


# A line of the index, and its row among the descriptors; None where it has none.
Line = tuple[IndexRow, int | None]


def _groups(
    lines: Iterator[IndexRow], count: int, *, only_live: bool
) -> Iterator[list[Line]]:
    group: list[Line] = []
    number = 0
    for line in lines:
        row = None
        if line.shard is not None:
            row, number = number, number + 1
        if only_live and line.status != OK:
            continue
        group.append((line, row))
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def _table(
    pa: Any, schema: Any, group: Sequence[Line], index: DescriptorIndex, dtype: str
) -> Any:
    vectors = np.zeros((len(group), index.dim), dtype)
    rows = np.array([-1 if row is None else row for _, row in group], np.int64)
    there = rows >= 0
    if there.any():
        # Runs of neighbours are read at once; rows of photos that are gone lie between.
        own, places = rows[there], np.flatnonzero(there)
        for part in np.split(
            np.arange(len(own)), np.flatnonzero(np.diff(own) != 1) + 1
        ):
            vectors[places[part]] = index.read(int(own[part[0]]), len(part))
    return pa.Table.from_arrays(
        [
            pa.array([escape_name(line.image.path) for line, _ in group], pa.string()),
            pa.array([line.status for line, _ in group], pa.string()),
            pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)),
                type=schema.field("descriptor").type,
                mask=pa.array(~there),
            ),
        ],
        schema=schema,
    )
