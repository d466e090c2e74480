"""Writes descriptor folders piece by piece, safe against kills.

A shard and its lines of the index are on disk before descriptors.json, which is
replaced in one move, counts them: what a kill leaves half done is not counted, and the
next run takes it away. Where lines change, descriptors.json first tells both what the
index was and what it will be: whichever is there, it is known.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.descriptors.folder import (
    FORMAT_VERSION,
    HEAD_FILE,
    INDEX_FILE,
    OK,
    OUTDATED,
    READ_LATER,
    REPLACED,
    VANISHED,
    DescriptorSettings,
    Head,
    ImageStamp,
    IndexRow,
    Shard,
    head_bytes,
    read_head,
    require_same_settings,
    shard_path,
)
from multigrain_jax.descriptors.index_file import HEADER, block_of
from multigrain_jax.descriptors.repair import find_sound
from multigrain_jax.descriptors.roots import moved_rows, with_root
from multigrain_jax.descriptors.shards import HashingFile
from multigrain_jax.errors import InputError
from multigrain_jax.files import PARTIAL_SUFFIX, append_durably, settle, write_durably


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
        check_digests: bool = True,
    ):
        """Open a folder, or make a new one.

        What is damaged in it is printed and taken away: `begin` plans it anew. A folder
        of version 1 is completed.

        Args:
            folder: where the descriptors go; nobody else may write there.
            settings: how they are made.
            rows_per_shard: a shard is written once so many images wait.
            check_digests: whether all shards are read and their digests compared, or
                their sizes alone.

        Raises:
            InputError: a folder of descriptors that were made otherwise, or a folder
                with something else in it.
        """
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._waiting: list[tuple[ImageStamp, np.ndarray, str]] = []
        self._rows: list[IndexRow] = []
        self._row_counts: list[int] = []  # of each block of the index
        # descriptors.json as this writer left it.
        self._written = b""
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / INDEX_FILE, *folder.glob("shard-*.npy")):
            if path.is_dir():
                raise InputError(f"{path}: a folder, a file was expected; remove it")
        if (folder / HEAD_FILE).exists():
            self._head = read_head(folder)
            require_same_settings(self._head.settings, settings, folder=folder)
            self._written = (folder / HEAD_FILE).read_bytes()
            self._take_what_is_sound(check_digests)
        else:
            self._head = Head(settings, 0, 0, 0, FORMAT_VERSION)
            self._remove_leftovers()
            if strangers := sorted(os.listdir(folder)):
                raise InputError(
                    f"{folder}: an empty folder or one of descriptors was expected, "
                    f"found {', '.join(strangers[:5])}; choose another workdir"
                )
            with write_durably(folder / INDEX_FILE) as file:
                file.write(HEADER)
            self._write_head()

    def _take_what_is_sound(self, check_digests: bool) -> None:
        head = self._head
        sound = find_sound(self._folder, head, check_digests=check_digests)
        for line in sound.damage:
            print(f"WARNING: {self._folder}: {line}", flush=True)
        self._rows, self._row_counts = sound.rows, sound.row_counts
        finished = head.num_finished_rows
        if sound.damage:
            # What is left of a run that was killed is no beginning of the next one.
            finished = len(self._rows)
        self._head = head._replace(
            num_rows=len(self._rows),
            num_finished_rows=finished,
            version=FORMAT_VERSION,
            shards=tuple(sound.shards),
        )
        if not sound.index_fits:
            self._replace_index()
        self._remove_leftovers()

    @property
    def rows(self) -> Sequence[IndexRow]:
        """All lines of the index that are on disk."""
        return self._rows

    def begin(
        self,
        images: Sequence[ImageStamp],
        plan: Callable[[np.ndarray], np.ndarray],
        *,
        is_scanned: Callable[[str], bool] = lambda path: True,
        is_readable: Callable[[int], bool] = lambda index: False,
        new_root: str | None = None,
        earlier_root: str | None = None,
    ) -> tuple[np.ndarray, int]:
        """Compare the folder with the images that there are now.

        Lines of images that are gone or have changed are marked.

        Args:
            images: all of them; of equal paths the first counts.
            plan: the order in which images are embedded: int [n] indices of `images`,
                ascending, to the same indices in that order; always the same for the
                same images.
            is_scanned: whether an image of this path would be among `images`, if it
                were there; only such ones can be gone.
            is_readable: asked of the images (by index of `images`) that an earlier run
                could not read.
            new_root: the folder that the images are below. Where those of another one
                are gone and are here instead, they were moved and keep descriptors.
            earlier_root: that of the run before, where the folder does not tell.

        Returns:
            The images of this run in the order in which they are to be added, int [n],
            and how many of the first of them are on disk already.
        """
        moved = self._take_root(images, new_root, earlier_root)
        if self._mark(images, is_scanned, is_readable) or moved:
            self._replace_index()
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
        self._require_own()
        settings, shard = self._head.settings, self._head.num_shards
        new_shards: tuple[Shard, ...] = ()
        good = [vector for _, vector, status in self._waiting if status == OK]
        if good:
            array = np.stack(good).astype(settings.dtype)
            if array.shape[1] != settings.dim:
                raise ValueError(
                    f"descriptors: found width {array.shape[1]}, expected "
                    f"{settings.dim} as {self._folder} has them; open another folder"
                )
            with write_durably(shard_path(self._folder, shard)) as file:
                hashing = HashingFile(file)
                np.save(hashing, array)
            new_shards = (Shard(len(array), hashing.size, hashing.digest()),)
        row, added = 0, []
        for image, _, status in self._waiting:
            if status == OK:
                added.append(IndexRow(image, shard, row, status))
                row += 1
            else:
                added.append(IndexRow(image, None, None, status))
        block, lines = block_of(added)
        append_durably(self._folder / INDEX_FILE, lines)
        self._rows += added
        self._row_counts.append(len(added))
        self._waiting = []
        self._head = self._head._replace(
            num_rows=len(self._rows),
            num_shards=shard + len(new_shards),
            shards=(*self._head.shards, *new_shards),
            blocks=(*self._head.blocks, block),
        )
        self._write_head()

    def _outstanding(self, images: Sequence[ImageStamp]) -> np.ndarray:
        finished = self._rows[: self._head.num_finished_rows]
        done = {row.image.path for row in finished if row.status not in OUTDATED}
        outstanding = []
        for index, image in enumerate(images):
            if image.path not in done:
                done.add(image.path)
                outstanding.append(index)
        return np.array(outstanding, np.int64)

    def _take_root(
        self, images: Sequence[ImageStamp], root: str | None, earlier_root: str | None
    ) -> bool:
        """Remember where the images are; returns whether any were moved there."""
        if root is None:
            return False
        roots = self._head.roots or ((earlier_root,) if earlier_root else ())
        moved = moved_rows(self._rows, roots, images, root)
        self._rows = moved or self._rows
        roots = with_root(roots, root)
        if roots != self._head.roots:
            self._head = self._head._replace(roots=roots)
            self._write_head()
        return moved is not None

    def _mark(
        self,
        images: Sequence[ImageStamp],
        is_scanned: Callable[[str], bool],
        is_readable: Callable[[int], bool],
    ) -> bool:
        """Mark what does not count any more; returns whether there was any."""
        now: dict[str, int] = {}
        for index, image in enumerate(images):
            now.setdefault(image.path, index)
        changed = False
        for number, row in enumerate(self._rows):
            if row.status in OUTDATED:
                continue
            index = now.get(row.image.path)
            if index is None:
                status = VANISHED if is_scanned(row.image.path) else None
            elif images[index] != row.image:
                status = REPLACED
            else:
                again = row.status != OK and number < self._head.num_finished_rows
                status = READ_LATER if again and is_readable(index) else None
            if status is not None:
                self._rows[number] = row._replace(status=status)
                changed = True
        return changed

    def _remove_leftovers(self) -> None:
        """Take away what a kill has left half done, and what is damaged."""
        # The folder is the writer's own: those that earlier versions left go too.
        for path in self._folder.glob(f"*{PARTIAL_SUFFIX}"):
            path.unlink(missing_ok=True)
        known = {
            shard_path(self._folder, number)
            for number, shard in enumerate(self._head.shards)
            if shard.digest is not None
        }
        shards = [
            path for path in self._folder.glob("shard-*.npy") if path not in known
        ]
        index = self._folder / INDEX_FILE
        if not (self._folder / HEAD_FILE).exists():
            if shards:
                print(
                    f"WARNING: {self._folder}: {HEAD_FILE} is missing, which says what "
                    f"made the {len(shards)} shards: all is made anew",
                    flush=True,
                )
            index.unlink(missing_ok=True)
        elif index.stat().st_size > self._index_size():
            os.truncate(index, self._index_size())
        for path in shards:
            path.unlink()

    def _index_size(self) -> int:
        return len(HEADER) + sum(block.bytes for block in self._head.blocks)

    def _replace_index(self) -> None:
        """Write all lines anew; at no moment is there an index that nobody knows."""
        blocks, parts, start = [], [], 0
        for count in self._row_counts:
            block, lines = block_of(self._rows[start : start + count])
            blocks.append(block)
            parts.append(lines)
            start += count
        self._head = self._head._replace(
            blocks=tuple(blocks), blocks_before=self._head.blocks
        )
        if self._head.blocks_before:
            self._write_head()
            settle(self._folder)
        with write_durably(self._folder / INDEX_FILE) as file:
            file.write(HEADER)
            file.writelines(parts)
        self._head = self._head._replace(blocks_before=())
        self._write_head()

    def _require_own(self) -> None:
        """Refuse to go on where descriptors.json is not as this writer left it.

        A file system without locks lets a second writer in.
        """
        path = self._folder / HEAD_FILE
        found = path.read_bytes() if path.exists() else b""
        if found != self._written:
            raise InputError(
                f"{path} was changed under this run, perhaps by a second one in the "
                "same folder; run it again once nothing else writes there"
            )

    def _write_head(self) -> None:
        self._require_own()
        self._written = head_bytes(self._head)
        with write_durably(self._folder / HEAD_FILE) as file:
            file.write(self._written)
