"""What tasks leave in a workdir: names of files, records as JSON, tables as CSV."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from multigrain_jax.errors import InputError
from multigrain_jax.files import (
    escape_name,
    unescape_name,
    write_atomically,
    write_durably,
)

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
# What tasks write beside their checkpoints, descriptors and plots.
WRITTEN_FILES = (
    CONFIG_FILE,
    METRICS_FILE,
    RESULTS_FILE,
    "skipped.txt",
    "report.html",
    "results.csv",
    "groups.csv",
    "pairs.csv",
    "links.csv",
    "health.csv",
    "predictions.csv",
    "per_query.csv",
)
# Characters of a line of a CSV file that is read here: a path, and some numbers.
MAX_LINE = 1 << 20
# A spreadsheet takes a cell that begins like this for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_config(workdir: Path, record: Mapping[str, Any]) -> None:
    """Write config.json, so that the workdir tells how it was made.

    A task does this before its work: what would stand in the way of its results at the
    end is refused now.

    Raises:
        InputError: a folder has the name of a file that is to be written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    for name in WRITTEN_FILES:
        if (workdir / name).is_dir():
            raise InputError(
                f"{workdir / name}: a folder, where a file of this name is to be "
                "written; remove or rename it, or choose another --workdir"
            )
    text = json.dumps(escape_names(record), indent=2, default=str)
    with write_durably(workdir / CONFIG_FILE) as file:
        file.write((text + "\n").encode())


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Write results.json: one flat object.

    Where the workdir has notes.txt, the number of its lines joins the results, and
    those that tell what was passed over.
    """
    # Reading photos takes libraries that the names of this file's top do without.
    from multigrain_jax.data.notes import PASSED_OVER, read_notes

    notes = read_notes(workdir)
    if notes:
        passed_over = [line for line in notes if PASSED_OVER in line]
        results = {**results, "num_notes": len(notes), "passed_over": passed_over}
    text = json.dumps(escape_names(results), indent=2)
    with write_durably(workdir / RESULTS_FILE) as file:
        file.write((text + "\n").encode())


def escape_names(value: Any) -> Any:
    """A JSON value whose names of files are UTF-8, as `files.escape_name` makes them.

    Without that, bytes that are none end as halves of characters, which few programs
    read.
    """
    return _with_names(value, escape_name)


def unescape_names(value: Any) -> Any:
    """The inverse of `escape_names`."""
    return _with_names(value, unescape_name)


def _with_names(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            _with_names(k, change): _with_names(v, change) for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_names(each, change) for each in value]
    return value


def print_table(
    scores: Mapping[str, float], words: Mapping[str, str] | None = None
) -> None:
    """Print scores, one a line, with the words for those that have some."""
    width = max(len(name) for name in scores)
    for name, value in scores.items():
        text = (words or {}).get(name, "")
        print(f"{name:<{width}}  {value:6.3f}  {text}".rstrip())


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int | float]]
) -> None:
    """Write a CSV file in UTF-8, whatever bytes there are in names.

    Text is escaped as `files.escape_name` does, and what begins like a formula, with
    apostrophes before it or without, gets an apostrophe more: so both can be undone.

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
        writer.writerows([guarded(cell) for cell in row] for row in rows)


def guarded(cell: str | int | float) -> str | int | float:
    """A cell of a CSV file as `write_table` writes it."""
    if not isinstance(cell, str):
        return cell
    text = escape_name(cell)
    return "'" + text if text.lstrip("'").startswith(FORMULA_STARTS) else text


def csv_rows(file: IO[str]) -> Iterator[list[str]]:
    """The rows of an open CSV file, whose lines have no reason to be long.

    Raises:
        csv.Error: a line, or a cell, is far too long.
    """

    def lines() -> Iterator[str]:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise csv.Error(f"a line of more than {MAX_LINE} characters")
            yield line

    return csv.reader(lines())


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
