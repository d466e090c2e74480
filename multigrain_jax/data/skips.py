"""Keeps count of images that could not be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources.folder import UNLABELLED
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError, printable
from multigrain_jax.growing_file import append_lines, listed_lines

SKIPPED_FILE = "skipped.txt"
# Fewer unreadable images than this end no run, however small it is.
NEVER_TOO_MANY = 10


class SkipLog:
    """Counts unreadable images, lists them in skipped.txt and stops at too many."""

    def __init__(
        self,
        source: ImageSource,
        *,
        workdir: Path | None,
        max_fraction: float,
        other_lists: Sequence[Path] = (),
    ):
        """Start with what skipped.txt already lists, which is not listed twice.

        Args:
            source: the images.
            workdir: where skipped.txt goes; None writes nothing.
            max_fraction: more images than this share of the source that this run could
                not read are an error, from `NEVER_TOO_MANY` on.
            other_lists: the same files of other hosts; what they list is not listed
                here.

        Raises:
            InputError: skipped.txt cannot be read.
        """
        self._source = source
        self._path = workdir / SKIPPED_FILE if workdir else None
        self._max_fraction = max_fraction
        self._seen: set[int] = set()
        self._listed: set[str] = set()
        # What is unreadable now. An earlier run may have met a fault that has passed.
        self._unreadable: list[str] = []
        for path in (*([] if self._path is None else [self._path]), *other_lists):
            try:
                self._listed |= set(listed_lines(path))
            except OSError as error:
                raise InputError(
                    f"{path}: reading it failed ({error.strerror}), expected the "
                    "list of images that could not be read; remove it"
                ) from error

    def record(self, indices: np.ndarray) -> None:
        """Note the images of `indices`; -1 stands for none.

        Raises:
            InputError: too many by now; the message names some.
        """
        new = sorted({int(i) for i in indices if i >= 0} - self._seen)
        for index in new:
            self._seen.add(index)
            reason = why_unreadable(self._source, index)
            name = self._source.describe(index)
            line = printable(f"{name}: {reason or 'could be read later on'}")
            if reason is not None:
                self._unreadable.append(line)
            if line in self._listed:
                continue
            self._listed.add(line)
            print(f"skipped {line}")
            if self._path is not None:
                append_lines(self._path, [line])
        self._tell_of_lost_classes(new)
        count, total = len(self._unreadable), len(self._source)
        if count >= NEVER_TOO_MANY and count > self._max_fraction * total:
            listed = "\n  ".join(self._unreadable[:10])
            raise InputError(
                f"{count} of {total} images could not be read, expected at most "
                f"{max(NEVER_TOO_MANY - 1, int(self._max_fraction * total))} by "
                f"--config.max_skipped_fraction={self._max_fraction:g}; mend or remove "
                f"them, or raise it\n  {listed}"
            )

    def _tell_of_lost_classes(self, new: Sequence[int]) -> None:
        """Name the classes whose last image was among the new ones."""
        labels = self._source.labels
        for label in sorted({int(labels[index]) for index in new} - {UNLABELLED}):
            if self._seen.issuperset(np.flatnonzero(labels == label).tolist()):
                name = printable(self._source.class_names[label])
                print(f"class {name!r}: none of its images could be read")
