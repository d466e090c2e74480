"""Writes descriptor folders piece by piece, safe against kills.

A shard and its lines of the index are on disk before descriptors.json, which is
replaced in one move, counts them: what a kill leaves half done is not counted, and the
next run takes it away.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from multigrain_jax.descriptors.folder import (
    FORMAT_VERSION,
    HEAD_FILE,
    INDEX_FILE,
    OK,
    REPLACED,
    VANISHED,
    DescriptorSettings,
    Head,
    ImageStamp,
    IndexRow,
    read_head,
    read_index,
    require_same_settings,
    shard_path,
)
from multigrain_jax.errors import InputError
from multigrain_jax.files import PARTIAL_SUFFIX, write_durably
from multigrain_jax.workdir import open_csv


class DescriptorWriter:
    """Adds descriptors to a folder; a run that was killed is continued exactly.

    A run is `begin`, then `add` for the planned images in their order, then `finish`.
    """

    def __init__(
        self,
        folder: Path,
        settings: DescriptorSettings,
        *,
        rows_per_shard: int,
    ):
        """Open a folder, or make a new one.

        Args:
            folder: where the descriptors go.
            settings: how they are made.
            rows_per_shard: a shard is written once so many images wait.

        Raises:
            InputError: a folder of descriptors that were made otherwise, or a folder
                with something else in it.
        """
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._waiting: list[tuple[ImageStamp, np.ndarray, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / HEAD_FILE).exists():
            self._head = read_head(folder)
            require_same_settings(self._head.settings, settings, folder=folder)
            self._rows = list(read_index(folder, self._head.num_rows))
            self._remove_leftovers()
        else:
            self._head = Head(settings, 0, 0, 0)
            self._rows = []
            self._remove_leftovers()
            if strangers := sorted(os.listdir(folder)):
                raise InputError(
                    f"{folder}: an empty folder or one of descriptors was expected, "
                    f"found {', '.join(strangers[:5])}; choose another workdir"
                )
            self._write_index()
            self._write_head()

    @property
    def rows(self) -> Sequence[IndexRow]:
        """All lines of the index that are on disk."""
        return self._rows

    def begin(
        self,
        images: Sequence[ImageStamp],
        plan: Callable[[np.ndarray], np.ndarray],
    ) -> tuple[np.ndarray, int]:
        """Compare the folder with the images that there are now.

        Lines of images that are gone or have changed are marked.

        Args:
            images: all of them; of equal paths the first counts.
            plan: the order in which images are embedded: int [n] indices of `images`,
                ascending, to the same indices in that order; always the same for the
                same images.

        Returns:
            The images of this run in the order in which they are to be added, int [n],
            and how many of the first of them are on disk already.
        """
        self._mark(images)
        order = plan(self._outstanding(images))
        start = self._head.num_finished_rows
        stored = [row.image for row in self._rows[start:]]
        if stored == [images[index] for index in order[: len(stored)]]:
            return order, len(stored)
        # The images have changed since the kill: what is stored is a run of its own.
        self._head = self._head._replace(num_finished_rows=len(self._rows))
        self._write_head()
        return plan(self._outstanding(images)), 0

    def add(
        self,
        images: Sequence[ImageStamp],
        descriptors: np.ndarray,
        statuses: Sequence[str],
    ) -> None:
        """Add one batch of the plan; shards are cut between batches only.

        Args:
            images: n files.
            descriptors: [n, D]; rows of images that are not ok mean nothing.
            statuses: n times "ok" or the reason why an image has no descriptor.
        """
        self._waiting += zip(images, descriptors, statuses, strict=True)
        if len(self._waiting) >= self._rows_per_shard:
            self._commit()

    def finish(self) -> None:
        """Write what waits, and close the run."""
        if self._waiting:
            self._commit()
        self._head = self._head._replace(num_finished_rows=len(self._rows))
        self._write_head()

    def _commit(self) -> None:
        settings, shard = self._head.settings, self._head.num_shards
        good = [vector for _, vector, status in self._waiting if status == OK]
        if good:
            array = np.stack(good).astype(settings.dtype)
            if array.shape[1] != settings.dim:
                raise ValueError(
                    f"descriptors: found width {array.shape[1]}, expected "
                    f"{settings.dim} as {self._folder} has them; open another folder"
                )
            with write_durably(shard_path(self._folder, shard)) as file:
                np.save(file, array)
        row, added = 0, []
        for image, _, status in self._waiting:
            if status == OK:
                added.append(IndexRow(image, shard, row, status))
                row += 1
            else:
                added.append(IndexRow(image, None, None, status))
        with open_csv(self._folder / INDEX_FILE, "a") as file:
            _write_rows(file, added)
            file.flush()
            os.fsync(file.fileno())
        self._rows += added
        self._waiting = []
        self._head = self._head._replace(
            num_rows=len(self._rows), num_shards=shard + 1 if good else shard
        )
        self._write_head()

    def _outstanding(self, images: Sequence[ImageStamp]) -> np.ndarray:
        finished = self._rows[: self._head.num_finished_rows]
        done = {row.image.path for row in finished if _counts(row)}
        outstanding = []
        for index, image in enumerate(images):
            if image.path not in done:
                done.add(image.path)
                outstanding.append(index)
        return np.array(outstanding, np.int64)

    def _mark(self, images: Sequence[ImageStamp]) -> None:
        now: dict[str, ImageStamp] = {}
        for image in images:
            now.setdefault(image.path, image)
        for number, row in enumerate(self._rows):
            present = now.get(row.image.path)
            if _counts(row) and present != row.image:
                status = VANISHED if present is None else REPLACED
                self._rows[number] = row._replace(status=status)
        # Written whole, which also takes away what a kill left behind its end.
        self._write_index()

    def _remove_leftovers(self) -> None:
        # The folder is the writer's own: those that earlier versions left go too.
        for path in self._folder.glob(f"*{PARTIAL_SUFFIX}"):
            path.unlink(missing_ok=True)
        for path in self._folder.glob("shard-*.npy"):
            if int(path.stem.removeprefix("shard-")) >= self._head.num_shards:
                path.unlink()
        if not (self._folder / HEAD_FILE).exists():
            (self._folder / INDEX_FILE).unlink(missing_ok=True)

    def _write_index(self) -> None:
        columns = (*ImageStamp._fields, *IndexRow._fields[1:])
        with (
            write_durably(self._folder / INDEX_FILE) as file,
            open_csv(file.fileno(), "w", closefd=False) as text,
        ):
            csv.writer(text).writerow(columns)
            _write_rows(text, self._rows)

    def _write_head(self) -> None:
        values = {
            "format_version": FORMAT_VERSION,
            **self._head.settings._asdict(),
            **dict(zip(Head._fields[1:], self._head[1:], strict=True)),
        }
        if math.isinf(values["pooling_exponent"]):
            values["pooling_exponent"] = "inf"  # JSON has no infinity
        text = json.dumps(values, indent=1) + "\n"
        with write_durably(self._folder / HEAD_FILE) as file:
            file.write(text.encode())


def _counts(row: IndexRow) -> bool:
    return row.status not in (VANISHED, REPLACED)


def _write_rows(file: IO[str], rows: Sequence[IndexRow]) -> None:
    csv.writer(file).writerows((*row.image, *row[1:]) for row in rows)
