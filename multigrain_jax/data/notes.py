"""Keeps what there is to say of photos that were read, and of what was passed over."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from multigrain_jax.data.decoding import UndecodableImageError
from multigrain_jax.data.reading import read_noted
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import printable
from multigrain_jax.growing_file import append_lines, listed_lines

NOTES_FILE = "notes.txt"
PASSED_OVER = ": passed over "
PRINTED = 10  # notes on photos; all are in the file


class NoteLog:
    """Lists notes in notes.txt: one line each, first what was passed over."""

    def __init__(self, source: ImageSource, *, workdir: Path | None):
        """Print and keep what was passed over when the images were listed.

        What an earlier run has passed over in the same place no longer counts; its
        notes on photos do.

        Args:
            source: the images.
            workdir: where notes.txt goes; None writes nothing.
        """
        self._source = source
        self._path = workdir / NOTES_FILE if workdir else None
        self._seen: set[int] = set()
        self._num_printed = 0
        remarks = dict.fromkeys(printable(line) for line in source.remarks)
        known = read_notes(workdir) if workdir else []
        places = {line.split(PASSED_OVER)[0] + PASSED_OVER for line in remarks}
        kept = [line for line in known if not line.startswith(tuple(places))]
        self._lines = dict.fromkeys([*remarks, *kept])
        for line in remarks:
            if line not in known:
                print(line)
        if list(self._lines) != known:
            self._write(self._lines, anew=True)

    def record(self, indices: np.ndarray) -> None:
        """Note what there is to say of the images of `indices`; -1 stands for none."""
        new: list[str] = []
        for index in sorted({int(i) for i in indices if i >= 0} - self._seen):
            self._seen.add(index)
            try:
                notes = read_noted(self._source, index).notes
            except (OSError, UndecodableImageError):
                continue  # it was readable when it was used
            name = self._source.describe(index)
            new += [printable(f"{name}: {note}") for note in notes]
        new = [line for line in dict.fromkeys(new) if line not in self._lines]
        if not new:
            return
        self._lines.update(dict.fromkeys(new))
        for line in new[: max(0, PRINTED - self._num_printed)]:
            print(f"noted {line}")
        self._num_printed += len(new)
        self._write(new, anew=False)

    def _write(self, lines: Iterable[str], *, anew: bool) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # writing the file meets it again
            self._path.parent.mkdir(parents=True, exist_ok=True)
        append_lines(self._path, lines, anew=anew)


def read_notes(workdir: Path) -> list[str]:
    """The lines of a workdir's notes.txt; none where there is no such file."""
    try:
        return listed_lines(workdir / NOTES_FILE)
    except OSError:
        return []
