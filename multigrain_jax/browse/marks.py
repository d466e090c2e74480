"""What the user has decided of photos: kept in a file, each step undone by one call."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from multigrain_jax.browse.collection import Collection
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name, unescape_name, write_durably

Mark = Literal["keep", "away"]
MARKS: tuple[Mark, ...] = ("keep", "away")
MAX_STEPS = 200  # that can be undone


class Marks:
    """Marks of photos by their rows."""

    def __init__(self, path: Path, collection: Collection):
        """Read what an earlier run left, of photos that are the same still.

        Args:
            path: the file; it may be missing.
            collection: the photos.

        Raises:
            InputError: another file is there.
        """
        self._path = path
        self._collection = collection
        self._lock = threading.Lock()
        self._steps: list[dict[int, Mark | None]] = []
        self._marks: dict[int, Mark] = {}
        for name, size, mtime_ns, mark in _read(path):
            row = collection.row_of(name)
            if row is not None and collection.stamp(row)[1:] == (size, mtime_ns):
                self._marks[row] = mark

    def all(self) -> dict[int, Mark]:
        """Every mark of a photo that is shown."""
        with self._lock:
            return {
                r: mark for r, mark in self._marks.items() if self._collection.has(r)
            }

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._steps)

    def change(self, changes: Mapping[int, Mark | None]) -> None:
        """Set marks, or take them away, in one step."""
        with self._lock:
            before = {row: self._marks.get(row) for row in changes}
            self._set(changes)
            self._steps = [*self._steps, before][-MAX_STEPS:]

    def undo(self) -> dict[int, Mark | None]:
        """Take the last step back; what it changes."""
        with self._lock:
            if not self._steps:
                return {}
            before = self._steps[-1]
            self._set(before)
            self._steps.pop()
            return before

    def _set(self, changes: Mapping[int, Mark | None]) -> None:
        marks: dict[int, Mark] = {**self._marks}
        for row, mark in changes.items():
            if mark is None:
                marks.pop(row, None)
            else:
                marks[row] = mark
        kept = []
        for row, mark in sorted(marks.items()):
            path, size, mtime_ns = self._collection.stamp(row)
            kept.append([escape_name(path), size, mtime_ns, mark])
        with write_durably(self._path) as file:
            file.write((json.dumps({"marks": kept}, indent=0) + "\n").encode())
        self._marks = marks


def _read(path: Path) -> list[tuple[str, int, int, Mark]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["marks"]
        read = [(unescape_name(n), int(s), int(t), mark) for n, s, t, mark in found]
        if any(mark not in MARKS for *_, mark in read):
            raise ValueError("a mark that is none")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: marks of photos were expected, as this task writes them, and "
            f"reading them failed ({type(error).__name__}: {error}); restore it from a "
            "copy, or remove it to begin without marks"
        ) from error
    return read
