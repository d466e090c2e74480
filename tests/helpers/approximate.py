"""Collections of made-up descriptors, and an engine in plain NumPy to index them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from multigrain_jax.descriptors.approximate.build import begin_record, update_index
from multigrain_jax.descriptors.approximate.engine import (
    NOTHING,
    Effort,
    Stored,
    first_number,
)
from multigrain_jax.descriptors.approximate.record import (
    RECORD_FILE,
    Record,
    read_record,
    write_record,
)
from multigrain_jax.descriptors.approximate.search import ApproximateIndex
from multigrain_jax.descriptors.folder import OK, DescriptorSettings, ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.writer import DescriptorWriter

DIM = 16
SETTINGS = DescriptorSettings(
    dim=DIM,
    dtype="float16",
    model_digest="d",
    backbone="tiny",
    pooling_exponent=float("inf"),
    test_size=64,
    test_mode="rect",
    whitened=False,
)
ALL = Effort(num_candidates=20, num_probes=10_000, ef_search=64)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_rows(count: int, *, seed: int = 0) -> np.ndarray:
    """Rows of unit length, [count, DIM]."""
    return unit(np.random.default_rng(seed).standard_normal((count, DIM)))


def photos(count: int, *, mtime_ns: int = 1) -> list[ImageStamp]:
    """Files by number."""
    return [ImageStamp(f"/p/{n}.png", 1, mtime_ns) for n in range(count)]


def write_folder(
    folder: Path,
    images: Sequence[ImageStamp],
    descriptors: np.ndarray,
    *,
    rows_per_shard: int = 10,
    settings: DescriptorSettings = SETTINGS,
) -> None:
    """What `embed` does, for photos of these descriptors; others have vanished."""
    # No power fails meanwhile, and waiting for the disk is most of the time.
    with mock.patch.object(os, "fsync"):
        writer = DescriptorWriter(folder, settings, rows_per_shard=rows_per_shard)
        order, _ = writer.begin(images, lambda indices: indices)
        for start in range(0, len(order), rows_per_shard):
            part = order[start : start + rows_per_shard]
            writer.add([images[n] for n in part], descriptors[part], [OK] * len(part))
        writer.finish()


class PlainEngine:
    """Exact, of files of NumPy; as the real ones may be in two ways.

    Attributes:
        in_place: rows are in one file, which a killed update leaves half written.
        can_remove: whether rows leave a part.
        calls: updates so far.
        kill_at: the update that is killed half way; None: none.
    """

    def __init__(self, folder: Path, *, in_place: bool, can_remove: bool):
        self.folder = folder
        self.in_place = in_place
        self.can_remove = can_remove
        self.calls = 0
        self.kill_at: int | None = None

    def create(self, sample, *, num_rows):
        self._save("all.npz", {})
        return {"kind": "plain", "sample": len(sample), "num_rows": num_rows}

    def update(self, part, *, remove, add, anew):
        self.calls += 1
        name = "all.npz" if self.in_place else f"part-{self.calls}.npz"
        old = name if self.in_place else part.stored.file
        rows = self._load(old) if old and (self.in_place or not anew) else {}
        if self.in_place and (anew or not part.num_rows):
            first, end = map(first_number, (part.first_shard, part.end_shard))
            rows = {n: row for n, row in rows.items() if not first <= n < end}
        for number in remove.tolist():
            rows.pop(number, None)
        for numbers, vectors in add:
            assert not rows.keys() & set(numbers.tolist())
            rows |= dict(zip(numbers.tolist(), vectors, strict=True))
            if self.calls == self.kill_at:
                if self.in_place:
                    self._save(name, rows)
                raise Killed
        self._save(name, rows)
        return Stored("" if self.in_place else name, 1, "d")

    def search(self, parts, queries, *, k, effort):
        rows = self.rows(parts)
        numbers = np.array(list(rows), np.int64)
        found = np.full((len(queries), k), NOTHING, np.int64)
        if rows:
            order = np.argsort(-(queries @ np.stack(list(rows.values())).T), axis=1)
            found[:, : min(k, len(rows))] = numbers[order[:, :k]]
        return found

    def rows(self, parts):
        names = {part.stored.file or "all.npz" for part in parts}
        return {n: row for name in sorted(names) for n, row in self._load(name).items()}

    def size(self, parts):
        return len(self.rows(parts)), 1

    def close(self):
        pass

    def _load(self, name):
        with np.load(self.folder / name) as file:
            return dict(zip(file["numbers"].tolist(), file["rows"], strict=True))

    def _save(self, name, rows):
        vectors = np.stack(list(rows.values())) if rows else np.zeros((0, DIM))
        np.savez(
            self.folder / name,
            numbers=np.array(list(rows), np.int64),
            rows=vectors.astype(np.float32),
        )


class Killed(BaseException):
    """A process that has ended here."""


def bring_up(
    folder: Path,
    database: Path,
    engine,
    *,
    rows_per_commit: int = 20,
    rows_per_part: int = 40,
    before_step: Callable[[], None] = lambda: None,
):
    """What the task does: the record, and what has changed."""
    index = DescriptorIndex.open(database)
    assert index.settings is not None
    if (folder / RECORD_FILE).exists():
        record = read_record(folder)
    else:
        record = Record(index.settings, "plain", {"kind": "plain"}, {})
        record = begin_record(record, index, engine, train_rows=1000, seed=0)
        write_record(folder, record)
    return update_index(
        folder,
        record,
        index,
        engine,
        rows_per_commit=rows_per_commit,
        rows_per_part=rows_per_part,
        before_step=before_step,
    )


def opened(folder: Path, database: Path, engine, *, effort: Effort = ALL):
    """The index as a search opens it, and the collection."""
    exact = DescriptorIndex.open(database)
    record = read_record(folder)
    return ApproximateIndex(exact, record, engine, folder=folder, effort=effort), exact


def check_exact(folder: Path, database: Path, engine) -> int:
    """The index finds what the exact search finds; how many rows it does not hold."""
    index, exact = opened(folder, database, engine)
    queries = random_rows(7, seed=9).astype(np.float32)
    similarities, rows = index.search(queries, 5)
    expected, true_rows = exact.search(queries, 5)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    np.testing.assert_array_equal(rows, true_rows)
    return index.num_new
