"""What tasks leave in a workdir: names of files, records as JSON, tables as CSV."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from multigrain_jax.files import write_atomically, write_durably

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
# A spreadsheet takes a cell that begins like this for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_config(workdir: Path, record: Mapping[str, Any]) -> None:
    """Write config.json, so that the workdir tells how it was made."""
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, default=str)
    with write_durably(workdir / CONFIG_FILE) as file:
        file.write((text + "\n").encode())


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Write results.json: one flat object."""
    text = json.dumps(results, indent=2)
    with write_durably(workdir / RESULTS_FILE) as file:
        file.write((text + "\n").encode())


def print_table(scores: Mapping[str, float]) -> None:
    """Print scores, one a line."""
    width = max(len(name) for name in scores)
    print("\n".join(f"{name:<{width}}  {value:6.3f}" for name, value in scores.items()))


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


def open_csv(path: Path | int, mode: str, *, closefd: bool = True) -> IO[str]:
    """A CSV file of paths, open; names that are not UTF-8 come back as they were."""
    return open(
        path,
        mode,
        encoding="utf-8",
        errors="surrogateescape",
        newline="",
        closefd=closefd,
    )
