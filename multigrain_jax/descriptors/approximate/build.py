"""Brings an approximate index up to a folder of descriptors, step by step.

After every step index.json names a whole index of the shards up to there: a kill costs
one step, and a search ranks the rows that are not in it yet exactly.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.approximate.engine import (
    Engine,
    Part,
    Rows,
    Stored,
    row_numbers,
)
from multigrain_jax.descriptors.approximate.known import KnownRows, known_rows
from multigrain_jax.descriptors.approximate.record import (
    Record,
    read_rows,
    write_record,
    write_rows,
)
from multigrain_jax.descriptors.folder import shard_path
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.files import settle

# Rows that are read at a time, in float32.
BLOCK_BYTES = 64 << 20
# A part that rows cannot leave is made anew once more than this share are dead.
MAX_DEAD = 0.2
_NOT_STORED = Stored("", 0, "")


class Change(NamedTuple):
    """What an update has done: rows that came in, and that left."""

    num_added: int
    num_removed: int


def begin_record(
    record: Record,
    index: DescriptorIndex,
    engine: Engine,
    *,
    train_rows: int,
    seed: int,
) -> Record:
    """An index with nothing in it, which has learnt what rows are like.

    Args:
        record: of an index without parts.
        index: the descriptors.
        engine: of the index.
        train_rows: at most so many rows are a sample.
        seed: of the sample.
    """
    sample = draw_sample(index, train_rows, seed=seed)
    num_rows = int(index.live.sum())
    return record._replace(made=engine.create(sample, num_rows=num_rows))


def update_index(
    folder: Path,
    record: Record,
    index: DescriptorIndex,
    engine: Engine,
    *,
    rows_per_commit: int,
    rows_per_part: int,
    before_step: Callable[[], None],
) -> tuple[Record, Change]:
    """Take out what is gone, bring in what is new; what index.json says at the end.

    Args:
        folder: of the index, which nobody else writes to.
        record: what its index.json says.
        index: the descriptors, of the same folder.
        engine: of the index.
        rows_per_commit: a step ends after the shard that has so many rows full.
        rows_per_part: a part is full then, and the next one begins.
        before_step: called before index.json is replaced; what it raises ends the
            update there.

    Raises:
        InputError: the descriptors cannot be read, or are not those of the index.
    """
    updater = _Updater(folder, record, index, engine, before_step)
    updater.finish_pending()
    for number in range(len(updater.record.parts)):
        updater.refresh(number)
    updater.extend(rows_per_commit, rows_per_part)
    return updater.record, Change(updater.num_added, updater.num_removed)


def draw_sample(index: DescriptorIndex, count: int, *, seed: int) -> np.ndarray:
    """Up to `count` live rows in their order, float32 [n, D], read in blocks."""
    rows = np.flatnonzero(index.live)
    if len(rows) > count:
        rows = np.random.default_rng(seed).choice(rows, count, replace=False)
        rows.sort()
    sample = np.empty((len(rows), index.dim), np.float32)
    size = _block_rows(index)
    filled = 0
    for first in range(0, len(index), size):
        own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + size)]
        if len(own):
            block = index.read(first, int(own[-1]) - first + 1)
            sample[filled : filled + len(own)] = block[own - first]
            filled += len(own)
    return sample


class _Updater:
    """An update that is under way."""

    def __init__(
        self,
        folder: Path,
        record: Record,
        index: DescriptorIndex,
        engine: Engine,
        before_step: Callable[[], None],
    ):
        self.record = record
        self._before_step = before_step
        self.num_added = self.num_removed = 0
        self._folder, self._index, self._engine = folder, index, engine
        self._known: KnownRows = known_rows(record, index, folder=folder)

    def finish_pending(self) -> None:
        """Forget a part that a killed update has left half done."""
        if self.record.pending is None:
            return
        number = self.record.pending
        part = self.record.parts[number]
        print(f"{self._folder}: a killed run has left part {number}, made anew")
        self._change(number, part, np.zeros(self._length(part), bool), anew=True)

    def refresh(self, number: int) -> None:
        """Take the rows out of a part that are not live any more."""
        part = self.record.parts[number]
        held = read_rows(self._folder, part, self._length(part))
        live = self._known.live(part.first_shard, part.end_shard)
        dead = int((held & ~live).sum())
        missing = live & ~held
        anew = not self._engine.can_remove and dead > MAX_DEAD * held.sum()
        if missing.any() or anew or (dead and self._engine.can_remove):
            self._change(number, part, held, anew=anew)

    def extend(self, rows_per_commit: int, rows_per_part: int) -> None:
        """Bring in the shards behind the last part."""
        first, end = len(self.record.shards), self._known.num_shards
        while first < end:
            next_first, rows = first, 0
            while next_first < end and rows < rows_per_commit:
                rows += self._known.shards[next_first].rows
                next_first += 1
            self._extend_to(next_first, rows_per_part)
            first = next_first
            done = int(self._known.bounds[len(self.record.shards)])
            print(f"{done} of {self._known.num_rows} rows are indexed", flush=True)

    def _extend_to(self, end: int, rows_per_part: int) -> None:
        """Bring in the shards up to `end`, in the last part or a new one."""
        first = len(self.record.shards)
        shards = self._known.shards[first:end]
        mtimes = self._known.mtimes_ns[first:end]
        parts = list(self.record.parts)
        rows = sum(shard.rows for shard in shards)
        fits = bool(parts) and not self._engine.in_place
        if fits and self._length(parts[-1]) + rows <= rows_per_part:
            part = parts.pop()
            held = read_rows(self._folder, part, self._length(part))
            held = np.concatenate([held, np.zeros(rows, bool)])
            part = part._replace(end_shard=end)
        else:
            held = np.zeros(rows, bool)
            part = Part(first, end, 0, "", "", _NOT_STORED)
        record = self.record._replace(
            shards=(*self.record.shards, *shards),
            mtimes_ns=(*self.record.mtimes_ns, *mtimes),
            parts=(*parts, part),
        )
        self._change(len(parts), part, held, record=record)

    def _change(
        self,
        number: int,
        part: Part,
        held: np.ndarray,
        *,
        anew: bool = False,
        record: Record | None = None,
    ) -> None:
        """Make the live rows of a part those that it holds, and write index.json.

        Args:
            number: of the part.
            part: with the shards that it is to have.
            held: rows that it holds now.
            anew: hold nothing first.
            record: what index.json is to say but for the part; None: what it says.
        """
        record = record or self.record
        live = self._known.live(part.first_shard, part.end_shard)
        if self._engine.in_place:
            # A kill leaves rows that no record knows: the next run begins the part.
            name, digest = write_rows(self._folder, held)
            part = part._replace(rows_file=name, rows_digest=digest)
            self._write(_with_part(record, number, part)._replace(pending=number))
            settle(self._folder)
        stays = np.zeros_like(held) if anew else held
        if self._engine.can_remove:
            stays = stays & live
        stored = self._engine.update(
            part,
            remove=self._numbers(part, held & ~stays),
            add=self._blocks(part, live & ~stays),
            anew=anew,
        )
        now = stays | live
        self.num_added += int((live & ~held).sum())
        self.num_removed += int((held & ~now).sum())
        name, digest = write_rows(self._folder, now)
        part = Part(
            part.first_shard, part.end_shard, int(now.sum()), name, digest, stored
        )
        self._write(_with_part(record, number, part)._replace(pending=None))

    def _write(self, record: Record) -> None:
        self._before_step()
        write_record(self._folder, record)
        self.record = record

    def _length(self, part: Part) -> int:
        """Rows of the shards of a part."""
        bounds = self._known.bounds
        return int(bounds[part.end_shard] - bounds[part.first_shard])

    def _numbers(self, part: Part, wanted: np.ndarray) -> np.ndarray:
        """The numbers of rows of a part."""
        found = [np.zeros(0, np.int64)]
        for shard, own in self._by_shard(part, wanted):
            found.append(row_numbers(shard, own))
        return np.concatenate(found)

    def _by_shard(
        self, part: Part, wanted: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The rows of each shard of a part that are wanted."""
        bounds = self._known.bounds - self._known.bounds[part.first_shard]
        for shard in range(part.first_shard, part.end_shard):
            yield shard, np.flatnonzero(wanted[bounds[shard] : bounds[shard + 1]])

    def _blocks(self, part: Part, wanted: np.ndarray) -> Iterator[Rows]:
        """The descriptors of rows of a part, in blocks, with their numbers."""
        size = _block_rows(self._index)
        for shard, rows in self._by_shard(part, wanted):
            count = self._known.shards[shard].rows
            for first in range(0, count, size):
                own = rows[(rows >= first) & (rows < first + size)]
                if not len(own):
                    continue
                start = int(self._known.starts[shard]) + first
                block = self._index.read(start, min(size, count - first))
                vectors = block[own - first].astype(np.float32)
                if not np.isfinite(vectors).all():
                    raise InputError(
                        f"{self._descriptor_file(shard)}: found NaN or infinity, "
                        "expected numbers; run `embed` there again with another folder"
                    )
                yield row_numbers(shard, own), vectors

    def _descriptor_file(self, shard: int) -> Path:
        assert self._index.opened is not None  # it was opened from a folder
        return shard_path(self._index.opened.folder, shard)


def _with_part(record: Record, number: int, part: Part) -> Record:
    parts = [*record.parts]
    parts[number] = part
    return record._replace(parts=tuple(parts))


def _block_rows(index: DescriptorIndex) -> int:
    return max(1, BLOCK_BYTES // (4 * index.dim))
