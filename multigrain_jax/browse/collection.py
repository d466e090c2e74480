"""The photos of a collection by their rows: where they are, and in which folder."""

import os
from collections.abc import Iterable, Sequence

import numpy as np

from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.index_file import read_open_index
from multigrain_jax.descriptors.roots import is_below


class Collection:
    """What is known of the photos of a descriptor folder, all of it in memory.

    Attributes:
        index: the descriptors.
        roots: folders that the photos are below.
        alive: bool [N], rows that are shown; those whose files were moved away are not.
        folders: names for people, in the order in which they are shown.
        folder_of: int32 [N], the folder of each row; -1 of rows that do not count.
        order: int64 [P], all rows that count, by folder and then by name.
    """

    def __init__(self, index: DescriptorIndex, *, roots: Sequence[str]):
        """Read the paths of all rows.

        Args:
            index: the descriptors.
            roots: folders that the photos are below; none: what all have in common.
        """
        self.index = index
        rows = np.flatnonzero(index.live)
        self._paths = dict(zip(rows.tolist(), index.paths(rows), strict=True))
        self._rows = {path: row for row, path in self._paths.items()}
        self._stamps = _stamps(index)
        self.roots = tuple(roots) or _common_root(self._paths.values())
        self.alive = index.live.copy()
        folders = {row: os.path.dirname(path) for row, path in self._paths.items()}
        known = sorted(set(folders.values()), key=lambda name: name.split("/"))
        numbers = {folder: number for number, folder in enumerate(known)}
        self.folders = self._names(known)
        self.folder_of = np.full(len(index), -1, np.int32)
        self.folder_of[rows] = [numbers[folders[row]] for row in rows.tolist()]
        self.order = np.array(
            sorted(self._paths, key=lambda r: (self.folder_of[r], self._paths[r])),
            np.int64,
        )

    def __len__(self) -> int:
        """How many photos are shown."""
        return int(self.alive.sum())

    def has(self, row: int) -> bool:
        """Whether there is a photo of that row."""
        return 0 <= row < len(self.alive) and bool(self.alive[row])

    def path(self, row: int) -> str:
        """The file of a row, or what a data set calls its image."""
        return self._paths[row]

    def stamp(self, row: int) -> ImageStamp:
        """The file of a row as it was when it was embedded, at its present path."""
        size, mtime_ns = self._stamps.get(row, (0, 0))
        return ImageStamp(self._paths[row], size, mtime_ns)

    def row_of(self, path: str) -> int | None:
        """The row of a path; None where it is not in the collection."""
        return self._rows.get(path)

    def class_of(self, row: int) -> str:
        """The name of the folder that a photo lies in, without those above it."""
        return self.folders[self.folder_of[row]].rpartition("/")[2]

    def within(self, folder: str | None, class_name: str | None) -> np.ndarray:
        """Which rows are shown and lie in a folder, its subfolders included.

        Args:
            folder: one of `folders`, or one above them; None: any.
            class_name: what `class_of` is to be; None: any.

        Returns:
            bool [N].
        """
        wanted = np.ones(len(self.folders) + 1, bool)
        for number, name in enumerate(self.folders):
            in_folder = not folder or name == folder or is_below(name, folder)
            in_class = class_name is None or name.rpartition("/")[2] == class_name
            wanted[number] = in_folder and in_class
        # The number -1 takes the last entry.
        return self.alive & wanted[self.folder_of]

    def shown(self, mask: np.ndarray) -> np.ndarray:
        """The rows of a mask in the order in which photos are shown: int64."""
        return self.order[mask[self.order]]

    def counts(self) -> list[tuple[str, int]]:
        """The folders that have photos, in their order, and how many each shows."""
        count = np.bincount(
            self.folder_of[self.alive], minlength=len(self.folders)
        ).tolist()
        return [pair for pair in zip(self.folders, count, strict=True) if pair[1]]

    def _names(self, folders: Sequence[str]) -> list[str]:
        """Folders as they are below the root, where there is one root."""
        if len(self.roots) != 1:
            return list(folders)
        root = self.roots[0].rstrip("/")
        names = [f[len(root) + 1 :] if is_below(f, root) else f for f in folders]
        if root in folders:
            own = os.path.basename(root) or "/"
            # No folder within it is to be taken for it.
            is_taken = any(name == own or is_below(name, own) for name in names)
            names[folders.index(root)] = "." if is_taken else own
        return names


def _stamps(index: DescriptorIndex) -> dict[int, tuple[int, int]]:
    if index.opened is None:
        return {}
    folder, head, descriptor = index.opened[:3]
    lines = read_open_index(descriptor, head, folder=folder)
    stored = (line.image for line in lines if line.shard is not None)
    return {row: (image.size, image.mtime_ns) for row, image in enumerate(stored)}


def _common_root(paths: Iterable[str]) -> tuple[str, ...]:
    folders = {os.path.dirname(p) for p in paths if os.path.isabs(p)}
    return (os.path.commonpath(folders),) if folders else ()
