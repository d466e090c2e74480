"""A search through an index: exact similarities, and never a photo that is gone."""

import os

import numpy as np
import pytest
from helpers.approximate import (
    ALL,
    DIM,
    PlainEngine,
    bring_up,
    opened,
    photos,
    random_rows,
    write_folder,
)

from multigrain_jax.descriptors.approximate import search as module
from multigrain_jax.descriptors.approximate.engine import row_numbers
from multigrain_jax.descriptors.approximate.record import read_record
from multigrain_jax.descriptors.approximate.search import open_approximate
from multigrain_jax.descriptors.folder import shard_path
from multigrain_jax.descriptors.index import DescriptorIndex, ScoreNormalization
from multigrain_jax.errors import InputError

QUERIES = random_rows(30, seed=5).astype(np.float32)


@pytest.fixture
def paths(tmp_path):
    folder, database = tmp_path / "index", tmp_path / "database"
    folder.mkdir()
    write_folder(database, photos(60), random_rows(60))
    bring_up(folder, database, engine(folder))
    return folder, database


def engine(folder):
    return PlainEngine(folder, in_place=False, can_remove=False)


def check(index, exact, queries=QUERIES, k=5, normalization=None):
    similarities, rows = index.search(queries, k, normalization=normalization)
    expected, true = exact.search(queries, k, normalization=normalization)
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    np.testing.assert_array_equal(rows, true)
    assert (similarities.dtype, rows.dtype) == (np.float32, np.int64)


def test_in_blocks_and_with_normalised_scores(paths, monkeypatch):
    index, exact = opened(*paths, engine(paths[0]))
    check(index, exact)
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(module, "RANKED_BYTES", 4 * DIM * 20 * 3)
    check(index, exact)
    training = DescriptorIndex([random_rows(9, seed=3).astype(np.float16)])
    check(index, exact, normalization=ScoreNormalization(training, 3, 2.0))
    check(index, exact, queries=QUERIES[:0])
    assert len(index) == 60 and index.dim == DIM
    np.testing.assert_array_equal(index.read(58, 3), exact.read(58, 3))
    assert index.paths([3]) == exact.paths([3])


def test_an_engine_may_say_anything(paths):
    class Liar(PlainEngine):
        def search(self, parts, queries, *, k, effort):
            found = super().search(parts, queries, k=k, effort=effort)
            found[:, 5] = found[:, 0]  # twice the same
            shard = np.array([0, 1, 10, 2**32 - 1])
            found[:, 6:10] = row_numbers(3, shard)  # ten rows has the shard
            found[:, 10] = row_numbers(77, shard[:1])
            found[:, 11] = -5
            return found

    index, exact = opened(*paths, Liar(paths[0], in_place=False, can_remove=False))
    check(index, exact)


def test_gone_photos_never_come_back(paths):
    folder, database = paths
    write_folder(database, photos(60)[30:], random_rows(60)[30:])
    index, exact = opened(*paths, engine(folder))
    _, rows = index.search(QUERIES, 20)
    # All twenty candidates are of the index of sixty rows; half of them are gone.
    assert rows.max() < 60 and ((rows >= 30) | (rows == -1)).all()
    assert (rows == -1).any()
    check(index, exact, k=5, queries=QUERIES[(rows >= 0).sum(axis=1) >= 5])


def test_more_than_an_engine_gives_is_exact(paths, monkeypatch):
    monkeypatch.setattr(module, "MAX_CANDIDATES", 30)
    index, exact = opened(*paths, engine(paths[0]))
    index._engine.search = None
    check(index, exact, k=31)


def test_queries_of_another_width_are_refused(paths):
    index, _ = opened(*paths, engine(paths[0]))
    with pytest.raises(InputError, match=r"found shape \(2, 3\)"):
        index.search(np.zeros((2, 3), np.float32), 5)


def test_shards_are_read_whole_only_where_they_have_changed(paths, monkeypatch):
    folder, database = paths
    compared = []

    def problem(path, known):
        compared.append(path)
        return "another content" if path == shard_path(database, 2) else None

    monkeypatch.setattr("multigrain_jax.descriptors.shards.shard_problem", problem)
    index, _ = opened(*paths, engine(folder))
    index.search(QUERIES, 5)
    assert compared == []
    os.utime(shard_path(database, 2))
    index, _ = opened(*paths, engine(folder))
    with pytest.raises(InputError, match="another content"):
        index.search(QUERIES, 5)
    assert compared == [shard_path(database, 2)]
    # New shards are searched exactly, and that compares them.
    os.utime(shard_path(database, 2), ns=(1, read_record(folder).mtimes_ns[2]))
    write_folder(database, photos(70), random_rows(70))
    compared.clear()
    index, _ = opened(*paths, engine(folder))
    assert index.num_new == 10
    index.search(QUERIES, 5)
    assert compared == [shard_path(database, 6)]


def test_an_index_that_is_replaced_meanwhile_is_opened_anew(paths):
    folder, database = paths
    attempts = []

    def open_engine(record, folder):
        attempts.append(record)
        if len(attempts) == 1:
            # Its writer comes in between.
            bring_up(folder, database, engine(folder))
            assert not (folder / record.parts[-1].rows_file).exists()
        return engine(folder)

    write_folder(database, photos(61), random_rows(61))
    exact = DescriptorIndex.open(database)
    index = open_approximate(exact, folder, open_engine, effort=ALL)
    assert len(attempts) == 2 and index.num_new == 0
    check(index, exact)


def test_rows_that_an_engine_has_lost_are_missed(paths):
    folder, database = paths
    exact = DescriptorIndex.open(database)
    closed = []

    class Lossy(PlainEngine):
        def size(self, parts):
            return 59, 1

        def close(self):
            closed.append(self)

    def open_engine(record, folder):
        return Lossy(folder, in_place=False, can_remove=True)

    with pytest.raises(InputError, match="59 rows in the index, 60 expected"):
        open_approximate(exact, folder, open_engine, effort=ALL)
    assert len(closed) == 1
