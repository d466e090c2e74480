"""An index is of one folder of descriptors, in whatever state that is."""

import numpy as np
import pytest
from helpers.approximate import SETTINGS, photos, random_rows, write_folder

from multigrain_jax.descriptors.approximate.engine import Part, Stored
from multigrain_jax.descriptors.approximate.known import known_rows, require_rows
from multigrain_jax.descriptors.approximate.record import Record
from multigrain_jax.descriptors.folder import read_head, shard_path
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "database", photos(30), random_rows(30))
    return tmp_path / "database"


def record_of(folder, **changes):
    head = read_head(folder)
    record = Record(head.settings, "plain", {}, {}, head.shards)
    return record._replace(**changes)


def known(record, folder):
    return known_rows(record, DescriptorIndex.open(folder), folder=folder / "index")


def test_shards_of_the_index_and_new_ones(folder):
    record = record_of(folder)
    write_folder(folder, photos(45)[2:], random_rows(45)[2:])
    found = known(record, folder)
    assert found.num_shards == 5 and found.num_rows == 45
    assert found.starts.tolist() == [0, 10, 20, 30, 40]
    assert found.live_rows.tolist() == [False] * 2 + [True] * 43
    assert found.live(0, 1).sum() == 8
    mtime = shard_path(folder, 2).stat().st_mtime_ns
    assert found.mtimes_ns[2] == mtime


def test_a_lost_shard_has_dead_rows(folder):
    record = record_of(folder)
    shard_path(folder, 1).write_bytes(b"")
    write_folder(folder, photos(30), random_rows(30))
    found = known(record, folder)
    assert found.starts.tolist() == [0, -1, 10, 20]
    assert np.flatnonzero(~found.live_rows).tolist() == list(range(10, 20))
    # It had no rows yet where it was not known.
    assert known(record_of(folder), folder).bounds.tolist() == [0, 10, 10, 20, 30]


@pytest.mark.parametrize("field", ["model_digest", "test_size", "dtype"])
def test_an_index_of_another_model_is_refused(folder, field):
    settings = SETTINGS._replace(**{field: "other"})
    with pytest.raises(InputError, match=f"{field} 'other' against .*rebuild=True"):
        known(record_of(folder, settings=settings), folder)


def test_an_index_of_another_folder_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    write_folder(other, photos(30), random_rows(30, seed=1))
    with pytest.raises(InputError, match="shard 0 has another digest"):
        known(record_of(folder), other)
    fewer = tmp_path / "fewer"
    write_folder(fewer, photos(20), random_rows(30)[:20])
    with pytest.raises(InputError, match="the index has 3 shards, the folder 2"):
        known(record_of(folder), fewer)


def test_rows_that_an_engine_has_lost_are_missed(folder):
    part = Part(0, 3, 30, "", "", Stored("", 0, ""))
    record = record_of(folder, parts=(part,))

    class Engine:
        def size(self, parts):
            return sum(part.num_rows for part in parts) - lost, 1

    lost = 0
    require_rows(Engine(), record, folder=folder)
    lost = 1
    with pytest.raises(InputError, match=r"29 rows in the index, 30 expected.*rebuild"):
        require_rows(Engine(), record, folder=folder)
    require_rows(Engine(), record._replace(pending=0), folder=folder)


def test_a_folder_without_digests_is_refused(folder):
    index = DescriptorIndex.open(folder)
    head = index.opened.head._replace(version=1, shards=())
    index.opened = index.opened._replace(head=head)
    with pytest.raises(InputError, match=r"version 1 found.*run `embed` there again"):
        known_rows(record_of(folder), index, folder=folder)
