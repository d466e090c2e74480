"""How the shards that an index knows stand to those of the descriptor folder now."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.approximate.engine import Engine
from multigrain_jax.descriptors.approximate.record import Record
from multigrain_jax.descriptors.folder import (
    DescriptorSettings,
    Shard,
    shard_path,
)
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError


class KnownRows(NamedTuple):
    """The shards of a descriptor folder by their numbers.

    Attributes:
        shards: all of the folder; one that was indexed and is lost since has the rows
            that it had, of which none is live.
        mtimes_ns: of their files; 0 where a shard is lost.
        starts: int64 [shards], the first row of each in the `DescriptorIndex`; -1 where
            it is lost.
        live_rows: bool, of all rows of all `shards`, one behind the other.
        bounds: int64 [shards + 1], where each shard's rows begin among these.
    """

    shards: tuple[Shard, ...]
    mtimes_ns: tuple[int, ...]
    starts: np.ndarray
    live_rows: np.ndarray
    bounds: np.ndarray

    @property
    def num_shards(self) -> int:
        """How many shards there are, lost ones among them."""
        return len(self.shards)

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return int(self.bounds[-1])

    def live(self, first_shard: int, end_shard: int) -> np.ndarray:
        """Which rows of consecutive shards count, bool."""
        return self.live_rows[self.bounds[first_shard] : self.bounds[end_shard]]


def known_rows(record: Record, index: DescriptorIndex, *, folder: Path) -> KnownRows:
    """The folder's shards, where they go on from those that the index knows.

    Args:
        record: of the index.
        index: the descriptors.
        folder: of the index.

    Raises:
        InputError: the index is of other descriptors.
    """
    opened, settings = index.opened, index.settings
    assert opened is not None and settings is not None  # it was opened from a folder
    if not opened.head.shards:
        raise InputError(
            f"{opened.folder}: a folder of descriptors of version "
            f"{opened.head.version} found, of which no digests are known, 2 expected; "
            "run `embed` there again, which completes it"
        )
    _require_same(record.settings, settings, of=opened.folder, folder=folder)
    shards, mtimes, starts, live, start = [], [], [], [], 0
    for number, shard in enumerate(opened.head.shards):
        known = record.shards[number] if number < len(record.shards) else shard
        lost = shard.digest is None
        if not lost and known != shard:
            raise _other(folder, opened.folder, f"shard {number} has another digest")
        shards.append(known)
        starts.append(-1 if lost else start)
        path = shard_path(opened.folder, number)
        mtimes.append(0 if lost else path.stat().st_mtime_ns)
        dead = np.zeros(known.rows, bool)
        live.append(dead if lost else index.live[start : start + shard.rows])
        start += 0 if lost else shard.rows
    if len(record.shards) > len(shards):
        more = f"the index has {len(record.shards)} shards, the folder {len(shards)}"
        raise _other(folder, opened.folder, more)
    return KnownRows(
        tuple(shards),
        tuple(mtimes),
        np.array(starts, np.int64),
        np.concatenate([np.zeros(0, bool), *live]),
        np.cumsum([0, *(shard.rows for shard in shards)]),
    )


def require_rows(engine: Engine, record: Record, *, folder: Path) -> None:
    """Check that an engine has as many rows as index.json says.

    Args:
        engine: of the index.
        record: what its index.json says; rows of a pending part are not known.
        folder: of the index.

    Raises:
        InputError: it has others, or its files are damaged.
    """
    found, _ = engine.size(record.parts)
    expected = sum(part.num_rows for part in record.parts)
    if found != expected and record.pending is None:
        raise InputError(
            f"{folder}: {found} rows in the index, {expected} expected; make it anew "
            "with --config configs/index.py --config.rebuild=True"
        )


def _require_same(
    found: DescriptorSettings, expected: DescriptorSettings, *, of: Path, folder: Path
) -> None:
    differences = [
        f"{name} {there!r} against {here!r}"
        for name, there, here in zip(
            DescriptorSettings._fields, found, expected, strict=True
        )
        if there != here
    ]
    if differences:
        raise _other(folder, of, ", ".join(differences))


def _other(folder: Path, of: Path, difference: str) -> InputError:
    return InputError(
        f"{folder}: the index of other descriptors than those of {of} found "
        f"({difference}), one of these expected; name the database that it was made "
        "of, or make it anew with --config configs/index.py --config.rebuild=True"
    )
