"""The lines of a list file: a photo's path each, and its class and instance."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.data.bucket_paths import ADDRESSES
from multigrain_jax.data.sources.scan import APPLE_DOUBLE, Sieve
from multigrain_jax.errors import InputError

# Fourteen million paths fit; what is larger is no list.
MAX_LIST_BYTES = 1 << 30
MAX_LINE = 8192
LINES_TRIED = 10
COLUMNS = 3


class ListLine(NamedTuple):
    """One line: its number, counted from 1, and its columns ("": not there).

    The path is relative to the root, and a photo has one path however it was spelt.
    """

    number: int
    path: str
    label: str
    instance: str


def read_list_lines(path: Path, *, root: Path, sieve: Sieve) -> list[ListLine]:
    """The lines of a list file that name photos, as `read_list_file` tells them.

    Args:
        path: the text file.
        root: the folder that its paths are relative to.
        sieve: remembers what was passed over.

    Raises:
        InputError: no such file, no line in it, no text, or a path outside root.
    """
    lines: list[ListLine] = []
    prefix, num_doubles = f"{root.absolute()}{os.sep}", 0
    for number, text in enumerate(_texts_of(path), start=1):
        text = text.strip()
        if not text or text[0] == "#":
            continue
        # What stands behind the instance is the business of other programs.
        columns = [column.strip() for column in text.split("\t", COLUMNS)[:COLUMNS]]
        name, label, instance = columns + [""] * (COLUMNS - len(columns))
        if os.path.basename(name).startswith(APPLE_DOUBLE):
            num_doubles += 1
            continue
        if _is_absolute(name):
            name = name.removeprefix(prefix)
        if _is_absolute(name) or ".." in name.split("/"):
            what = "is absolute, and " if _is_absolute(name) else ""
            raise InputError(
                f"list_file {path}: {name!r} {what}leads outside of {root}; expected "
                "paths relative to it: change data.root or the line"
            )
        lines.append(ListLine(number, os.path.normpath(name), label, instance))
    if num_doubles:
        sieve.add(path, [f"{num_doubles} {APPLE_DOUBLE}*: notes of macOS on photos"])
    if not lines:
        raise InputError(
            f"list_file {path}: no paths in it; expected one a line; fill it, or set "
            "data.list_file to another"
        )
    _refuse_spaces_for_tabs(path, root, [line.path for line in lines[:LINES_TRIED]])
    return lines


def check_repeated(path: Path, lines: Sequence[ListLine], *, by_list: bool) -> None:
    """Say how many photos are listed more than once.

    Args:
        path: of the list file, for messages.
        lines: its lines.
        by_list: whether the lines name the instances.

    Raises:
        InputError: `by_list`, and a photo is of two instances, so that it would be
            its own negative.
    """
    first: dict[str, ListLine] = {}
    again: dict[str, ListLine] = {}
    for line in lines:
        before = first.setdefault(line.path, line)
        if before is line:
            continue
        if by_list and before.instance != line.instance:
            raise InputError(
                f"list_file {path}: found {line.path!r} in line {before.number} "
                f"{_of_instance(before)} and in line {line.number} "
                f"{_of_instance(line)}, expected one instance of a photo, which would "
                "be its own negative; change or remove one of the lines"
            )
        again.setdefault(line.path, line)
    if again:
        name, line = next(iter(again.items()))
        print(
            f"list_file {path}: {len(again)} of {len(first)} photos are listed more "
            f"than once, the first is {name!r} in lines {first[name].number} and "
            f"{line.number}"
        )


def _of_instance(line: ListLine) -> str:
    return f"of the instance {line.instance!r}" if line.instance else "of no instance"


def _is_absolute(name: str) -> bool:
    return os.path.isabs(name) or name.startswith(ADDRESSES)


def _refuse_spaces_for_tabs(path: Path, root: Path, names: Sequence[str]) -> None:
    """Say so where the first paths are not there, but are without their last word."""
    for name in names:
        shorter, space, label = name.rpartition(" ")
        if space and not (root / name).exists() and (root / shorter).is_file():
            raise InputError(
                f"list_file {path}: {name!r} is not there, but {shorter!r} is; a path "
                f"may hold spaces: expected a tab before the class {label!r}"
            )


def _texts_of(path: Path) -> list[str]:
    """The lines of a list file of a size that can be one."""
    try:
        if not path.is_file():
            raise OSError("there is no such file")
        if path.stat().st_size > MAX_LIST_BYTES:
            raise OSError(f"it has {path.stat().st_size} bytes")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        for number, line in enumerate(lines, start=1):
            if "\0" in line or len(line) > MAX_LINE:
                raise OSError(f"line {number} is no path: {line[:40]!r} …")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"list_file {path}: a text file with one path a line (UTF-8, at most "
            f"{MAX_LIST_BYTES >> 20} MiB) was expected, and reading it failed: {error}"
            "; mend it, or set data.list_file to another"
        ) from error
    return lines
