"""Tables of results as CSV that is safe to open in a spreadsheet."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from multigrain_jax.evaluation.descriptors import open_csv
from multigrain_jax.files import write_atomically

# A spreadsheet takes a cell that begins like this for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int | float]]
) -> None:
    """Write a CSV file; text that begins like a formula gets an apostrophe before it.

    Args:
        path: the file, replaced if it exists.
        columns: their names.
        rows: text and numbers; numbers stay as they are.
    """
    with (
        write_atomically(path) as file,
        open_csv(file.fileno(), "w", closefd=False) as text,
    ):
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows([_guarded(cell) for cell in row] for row in rows)


def _guarded(cell: str | int | float) -> str | int | float:
    if isinstance(cell, str) and cell.startswith(FORMULA_STARTS):
        return "'" + cell
    return cell
