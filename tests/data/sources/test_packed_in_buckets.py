"""Large files in buckets are read by ranges, and are the same set as on a disk."""

import pickle
import shutil

import numpy as np
import pytest
from helpers.buckets import BUSY, CUT
from helpers.photos import encode, noise_photo
from helpers.shards import samples, write_parquet, write_tar
from helpers.sources import open_photos

from multigrain_jax.data import bucket_tree
from multigrain_jax.data.cache import cache_folder
from multigrain_jax.data.sources import random_access
from multigrain_jax.data.sources.open import Subset
from multigrain_jax.data.sources.shard_index import INDEX_SUFFIX

COUNT = 8


@pytest.fixture
def remote(request):
    return request.getfixturevalue(request.param)


def write_set(root, kind):
    photos = [encode(noise_photo(n, (90, 80)), "JPEG") for n in range(COUNT)]
    for number, part in enumerate((slice(0, 5), slice(5, COUNT))):
        labels = [n % 2 for n in range(COUNT)[part]]
        if kind == "parquet":
            path = root / f"train-{number}.parquet"
            write_parquet(path, photos[part], labels, row_group_size=2)
        else:
            path = root / "train" / f"{number}.tar"
            write_tar(path, samples(photos[part], labels))
    (root / "classes.txt").write_text("ant\nbee\n")
    (root / ".hidden").mkdir()
    shutil.copy(path, root / ".hidden" / path.name)
    return photos


def content(source):
    return [source.read(i) for i in range(len(source))]


EACH = pytest.mark.parametrize(
    ("kind", "remote"),
    [("parquet", "gcs"), ("webdataset", "gcs"), ("parquet", "s3")],
    indirect=["remote"],
)


@EACH
def test_rows_labels_and_names_are_those_of_the_disk(tmp_path, kind, remote):
    photos = write_set(tmp_path / "set", kind)
    remote.put_folder(tmp_path / "set", "set")
    root = remote.url("set")
    here = open_photos(tmp_path / "set", "train", source=kind)
    there = open_photos(root, "train", source=kind)
    assert content(there) == content(here) == photos
    assert there.class_names == ["ant", "bee"]
    np.testing.assert_array_equal(there.labels, here.labels)
    names = [here.describe(i).replace(str(tmp_path / "set"), root) for i in range(8)]
    assert [there.describe(i) for i in range(8)] == names
    bucket_tree.forget()  # as in a reading process
    copy = pickle.loads(pickle.dumps(there))
    assert content(copy) == photos
    with copy.open(6) as file:
        assert file.read(30) == photos[6][:30]
    assert copy.stamp(6).size == len(photos[6])
    one = here.describe(0).rpartition("#" if kind == "parquet" else "/")[0]
    alone = open_photos(one.replace(str(tmp_path / "set"), root), "train", source=kind)
    assert content(alone) == photos[:5]


@EACH
def test_an_index_is_kept_beside_the_object_for_all_hosts(
    tmp_path, kind, remote, capsys
):
    write_set(tmp_path / "set", kind)
    remote.put_folder(tmp_path / "set", "set")
    root = remote.url("set")
    open_photos(root, "train", source=kind)
    assert "looking once" in capsys.readouterr().out
    kept = [name for name in remote.names("set") if name.endswith(INDEX_SUFFIX)]
    assert len(kept) == 2
    shutil.rmtree(cache_folder("shards"))  # as on another host
    bucket_tree.forget()
    assert len(content(open_photos(root, "train", source=kind))) == COUNT
    assert "looking once" not in capsys.readouterr().out
    assert len(list(cache_folder("shards").iterdir())) == 2


def test_a_photo_takes_one_request(tmp_path, gcs, monkeypatch):
    photos = write_set(tmp_path / "set", "parquet")
    gcs.put_folder(tmp_path / "set", "set")
    gcs.requests.clear()
    source = open_photos(gcs.url("set"), "train", source="parquet")
    # Of each file its end, and its row groups once, however small the reads in them.
    assert gcs.requests["read"] < 40
    gcs.requests.clear()
    assert content(source) == photos
    assert gcs.requests == {"read": COUNT}
    gcs.requests.clear()
    gcs.faults.order(BUSY, every=3, kinds=["read"])
    assert content(source) == photos
    assert gcs.requests["read"] > COUNT


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_photos_that_are_asked_for_are_fetched_once_and_ahead(tmp_path, gcs, kind):
    photos = write_set(tmp_path / "set", kind)
    gcs.put_folder(tmp_path / "set", "set")
    source = open_photos(gcs.url("set"), "train", source=kind)
    gcs.requests.clear()
    source.ask_for([3, 7, 1])
    # What has threads by now is sent to a process that has its own.
    copy = pickle.loads(pickle.dumps(source))
    assert [source.read(n) for n in (3, 7, 1)] == [photos[n] for n in (3, 7, 1)]
    assert gcs.requests == {"read": 3}
    chosen = Subset(copy, [6, 0])
    chosen.ask_for([1, 0])
    assert [chosen.read(0), chosen.read(1)] == [photos[6], photos[0]]
    assert gcs.requests == {"read": 5}


def test_answers_that_are_cut_are_waited_out(tmp_path, gcs, monkeypatch):
    photos = write_set(tmp_path / "set", "webdataset")
    gcs.put_folder(tmp_path / "set", "set")
    monkeypatch.setattr(random_access, "_BUCKET_BYTES", 1 << 10)
    gcs.faults.order(CUT, every=5, kinds=["read"])
    source = open_photos(gcs.url("set"), "train", source="webdataset")
    assert content(source) == photos


@EACH
def test_an_object_that_was_replaced_is_not_read_by_its_old_index(
    tmp_path, kind, remote
):
    write_set(tmp_path / "set", kind)
    remote.put_folder(tmp_path / "set", "set")
    source = open_photos(remote.url("set"), "train", source=kind)
    ends = ("train-0.parquet", "train/0.tar")
    (name,) = (name for name in remote.names("set") if name.endswith(ends))
    remote.put(name, remote.data(name) + b"\0" * 512)
    with pytest.raises(OSError, match="has changed since it was indexed"):
        source.read(0)


def test_copies_on_the_local_disk_are_read_again_without_a_request(tmp_path, gcs):
    photos = write_set(tmp_path / "set", "parquet")
    gcs.put_folder(tmp_path / "set", "set")
    source = open_photos(
        gcs.url("set"), "train", source="parquet", local_cache_dir=tmp_path / "copies"
    )
    assert content(source) == photos
    gcs.requests.clear()
    assert content(source) == photos
    assert not gcs.requests
