"""Keeps count of images that could not be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources.folder import UNLABELLED
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError

SKIPPED_FILE = "skipped.txt"


class SkipLog:
    """Counts unreadable images, lists them in skipped.txt and stops at too many."""

    def __init__(
        self, source: ImageSource, *, workdir: Path | None, max_fraction: float
    ):
        """Start with what skipped.txt already lists.

        Args:
            source: the images.
            workdir: where skipped.txt goes; None writes nothing.
            max_fraction: more unreadable images than this share of the source are an
                error.
        """
        self._source = source
        self._path = workdir / SKIPPED_FILE if workdir else None
        self._limit = max_fraction * len(source)
        self._seen: set[int] = set()
        # A resumed run meets the same images again: its lines count once.
        self._lines: dict[str, None] = {}
        if self._path is not None and self._path.exists():
            self._lines = dict.fromkeys(self._path.read_text().splitlines())

    def record(self, indices: np.ndarray) -> None:
        """Note the images of `indices`; -1 stands for none.

        Raises:
            InputError: too many by now; the message names some.
        """
        new = sorted({int(i) for i in indices if i >= 0} - self._seen)
        for index in new:
            self._seen.add(index)
            reason = why_unreadable(self._source, index) or "could be read later on"
            line = _printable(f"{self._source.describe(index)}: {reason}")
            if line in self._lines:
                continue
            self._lines[line] = None
            print(f"skipped {line}")
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(line + "\n")
        self._tell_of_lost_classes(new)
        if len(self._lines) > self._limit:
            listed = "\n  ".join(list(self._lines)[:10])
            raise InputError(
                f"{len(self._lines)} of {len(self._source)} images could not be read, "
                f"more than max_skipped_fraction allows ({self._limit:g}); mend or "
                f"remove them, or raise the limit\n  {listed}"
            )

    def _tell_of_lost_classes(self, new: Sequence[int]) -> None:
        """Name the classes whose last image was among the new ones."""
        labels = self._source.labels
        for label in sorted({int(labels[index]) for index in new} - {UNLABELLED}):
            if self._seen.issuperset(np.flatnonzero(labels == label).tolist()):
                name = _printable(self._source.class_names[label])
                print(f"class {name!r}: none of its images could be read")


def _printable(text: str) -> str:
    """The text with escapes for what is no character, or steers a terminal.

    File names may hold line breaks, escape sequences and bytes that are no UTF-8.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
