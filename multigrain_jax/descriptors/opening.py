"""Opens a folder of descriptors to read it, on its last complete state."""

import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.folder import (
    DESCRIPTOR_FOLDER,
    HEAD_FILE,
    INDEX_FILE,
    OK,
    DescriptorSettings,
    Head,
    read_head,
    shard_path,
)
from multigrain_jax.descriptors.in_bucket import on_this_machine
from multigrain_jax.descriptors.index_file import (
    index_text,
    open_index,
    read_open_index,
)
from multigrain_jax.descriptors.shards import ShardFile
from multigrain_jax.errors import InputError, printable
from multigrain_jax.workdir import csv_rows

# Whether a folder whose descriptors were made so is one that is looked for.
Fits = Callable[[DescriptorSettings], bool]


class OpenFolder(NamedTuple):
    """A folder of descriptors at one moment.

    Attributes:
        folder: where it is.
        head: what descriptors.json says.
        index: descriptor of the open index.csv, which the owner closes.
        shards: one after the other.
        live: bool [N], which of their rows count.
    """

    folder: Path
    head: Head
    index: int
    shards: list[ShardFile]
    live: np.ndarray


def folders_in(path: str | Path) -> list[Path]:
    """The folders of descriptors that a path may mean, the newest first.

    Args:
        path: the folder itself, or a workdir of the task `embed`, which may hold
            workdirs of other settings; what is in a bucket is copied to this machine.
    """
    folder = on_this_machine(path)
    if (folder / HEAD_FILE).exists():
        return [folder]
    inside = [folder / DESCRIPTOR_FOLDER, *folder.glob(f"*/{DESCRIPTOR_FOLDER}")]
    found = [each for each in inside if (each / HEAD_FILE).exists()]
    return sorted(found, key=lambda each: -(each / HEAD_FILE).stat().st_mtime_ns)


def find_folder(path: str | Path, *, fits: Fits | None = None) -> Path:
    """The folder of descriptors that a path means; of several the newest, and says so.

    Args:
        path: as of `folders_in`.
        fits: of several, those come first that it says so of.
    """
    folder = on_this_machine(path)
    found = folders_in(folder)
    if not found:
        inside = folder / DESCRIPTOR_FOLDER
        return inside if inside.is_dir() else folder
    if len(found) == 1:
        return found[0]
    fitting = [each for each in found if fits is not None and _fits(each, fits)]
    taken = (fitting or found)[0]
    what = "the newest that fits" if fitting else "the newest"
    if fits is not None and not fitting:
        what = "the newest, though none fits what was asked for"
    others = ", ".join(_named(each, folder) for each in found if each != taken)
    said = f"{_named(taken, folder)} is opened, {what}; others are {others}"
    print(printable(f"{path}: {said}; give the path of the one that you mean"))
    # Of what is in a bucket only the newest was copied whole.
    return taken if (taken / INDEX_FILE).exists() else on_this_machine(str(taken))


def _fits(folder: Path, fits: Fits) -> bool:
    try:
        made = read_head(folder).settings
    except InputError:  # damaged
        return False
    return fits(made)


def _named(folder: Path, workdir: Path) -> str:
    """A path that means this folder alone, and how its descriptors were made."""
    is_inside = folder.parent != workdir
    try:
        made = read_head(folder).settings
        how = f"{made.backbone}, {' and '.join(map(str, made.sizes))} pixels"
    except InputError:
        how = "damaged"
    return f"{folder.parent if is_inside else folder} ({how})"


def open_folder(path: str | Path, *, fits: Fits | None = None) -> OpenFolder:
    """Open what `find_folder` finds; sizes and the index are checked.

    Args:
        path: the folder, or a workdir.
        fits: as of `find_folder`.

    Raises:
        InputError: no such folder, no descriptors in it, or damage.
    """
    folder = find_folder(path, fits=fits)
    head, descriptor = open_index(folder)
    try:
        if not head.num_shards:
            raise InputError(f"{folder}: no descriptors in it; embed some images first")
        shards = _open_shards(folder, head)
        live = _live_rows(folder, head, descriptor, [len_of(each) for each in shards])
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFolder(folder, head, descriptor, shards, live)


def len_of(shard: ShardFile) -> int:
    """How many descriptors a shard holds."""
    return shard.shape[0]


def _open_shards(folder: Path, head: Head) -> list[ShardFile]:
    paths = [shard_path(folder, number) for number in range(head.num_shards)]
    if not head.shards:
        return [ShardFile(path) for path in paths]
    return [
        ShardFile(path, known, head.settings)
        for path, known in zip(paths, head.shards, strict=True)
        if known.digest is not None
    ]


def _live_rows(
    folder: Path, head: Head, descriptor: int, counts: list[int]
) -> np.ndarray:
    """Which rows count, where every row of every shard has its line, in order."""
    numbers = range(head.num_shards)
    if head.shards:
        numbers = [n for n in numbers if head.shards[n].digest is not None]
    shards, rows, live = _places(folder, head, descriptor)
    if len(shards) != sum(counts):
        raise InputError(
            f"{folder}: {sum(counts)} descriptors, but {len(shards)} lines of the "
            "index for them; the folder is damaged: run `embed` there again"
        )
    start = 0
    for number, count in zip(numbers, counts, strict=True):
        own = slice(start, start + count)
        wrong = (shards[own] != number) | (rows[own] != np.arange(count))
        if wrong.any():
            place = start + int(wrong.argmax())
            raise InputError(
                f"{folder / INDEX_FILE}: shard {shards[place]}, row {rows[place]} "
                f"found where shard {number} was expected to go on; two processes "
                "have written here, or the file was edited: run `embed` there again, "
                "which makes these descriptors anew"
            )
        start += count
    return live


def _places(
    folder: Path, head: Head, descriptor: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shard, row and whether it counts, of all lines with a descriptor."""
    if head.version == 1:
        found = [
            (row.shard, row.row, row.status == OK)
            for row in read_open_index(descriptor, head, folder=folder)
            if row.shard is not None
        ]
        table = np.array(found, np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2].astype(bool)
    # As text, or as numbers of Python, a hundred million lines would take gigabytes.
    shards, rows, live = array("q"), array("q"), bytearray()
    with index_text(descriptor) as file:
        lines = csv_rows(file)
        next(lines)
        for _, line in zip(range(head.num_rows), lines, strict=False):
            if line[3]:
                shards.append(int(line[3]))
                rows.append(int(line[4]))
                live.append(line[5] == OK)
    return np.asarray(shards), np.asarray(rows), np.frombuffer(live, bool)
