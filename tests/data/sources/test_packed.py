import dataclasses
import os
import pickle

import numpy as np
import pytest
from helpers.photos import plain_photo
from helpers.shards import samples, write_tar
from helpers.sources import open_photos

from multigrain_jax.data.decoding import VIEWER

PHOTOS = [plain_photo(20 * number) for number in range(6)]


@pytest.fixture
def tars(tmp_path):
    for shard in range(3):
        part = slice(2 * shard, 2 * shard + 2)
        write_tar(tmp_path / f"{shard}.tar", samples(PHOTOS[part], [0, 1]))
    return tmp_path


def test_what_travels_to_reading_processes_is_small_and_opens_nothing(tars):
    source = open_photos(tars, source="webdataset")
    source.describe(5)
    sent = pickle.dumps(source)
    assert b"0001.jpg" not in sent
    for path in tars.iterdir():
        path.rename(path.with_suffix(".gone"))
    copy = pickle.loads(sent)
    with pytest.raises(OSError, match=r"0\.tar"):
        copy.read(0)
    for path in tars.iterdir():
        path.rename(path.with_name(path.name.replace(".gone", ".tar")))
    assert [copy.read(i) for i in (5, 0, 3)] == [PHOTOS[i] for i in (5, 0, 3)]


def test_a_photo_knows_its_size_and_when_its_file_changed(tars):
    source = open_photos(tars, source="webdataset", num_images=2)
    changed = (tars / "2.tar").stat().st_mtime_ns
    assert source.stamp(1) == (len(PHOTOS[5]), changed)
    (tars / "1.png").write_bytes(PHOTOS[0])
    assert open_photos(tars).stamp(0).size == len(PHOTOS[0])


def test_a_photo_of_more_bytes_than_one_has_is_unreadable(tars):
    decoding = dataclasses.replace(VIEWER, max_megapixels=1e-6)
    source = open_photos(tars, source="webdataset", decoding=decoding)
    for read in (source.read, source.open):
        with pytest.raises(OSError, match=r"more than the limit of 12 .*megapixels"):
            read(2)


def test_labels_are_those_of_the_classes_in_training(tars):
    names = ["b", "c", "a"]
    (tars / "classes.txt").write_text("a\nb\n")
    source = open_photos(tars, source="webdataset", class_names=names)
    np.testing.assert_array_equal(source.labels, [2, 0] * 3)


def test_copies_are_told_apart_by_the_whole_path_and_size_of_their_file(
    tmp_path, monkeypatch
):
    # Unpacked archives often have the same times.
    found = {}
    for name, photo in (("a", b"1" * 50), ("b", b"2" * 50)):
        monkeypatch.chdir(tmp_path)
        write_tar(tmp_path / name / "set" / "0.tar", samples([photo], [0]))
        os.utime(tmp_path / name / "set" / "0.tar", ns=(1, 1))
        monkeypatch.chdir(tmp_path / name)
        source = open_photos("set", source="webdataset", local_cache_dir=tmp_path / "c")
        found[name] = source.read(0), source.read(0)
    assert found == {"a": (b"1" * 50,) * 2, "b": (b"2" * 50,) * 2}
