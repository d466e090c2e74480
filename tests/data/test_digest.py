"""What tells one set of images from another."""

import os
import shutil

import numpy as np
import pytest
from helpers.photos import plain_photo, write_plain_photos
from helpers.shards import samples, write_tar
from helpers.sources import open_photos

from multigrain_jax.data import digest
from multigrain_jax.data.digest import data_digest
from multigrain_jax.data.sources.source import ImageSource


@pytest.fixture
def photos(tmp_path):
    return write_plain_photos(
        tmp_path / "photos", [f"{name}/{i}.png" for name in "ab" for i in range(3)]
    )


def digest_of(root, **options):
    return data_digest(open_photos(root, **options), root=root)


def others(one, other):
    return {name for name in one if one[name] != other[name]}


def test_a_set_that_was_moved_or_copied_is_the_same(photos, tmp_path, monkeypatch):
    before = digest_of(photos)
    shutil.copytree(photos, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == before
    os.utime(photos / "a" / "0.png", (0, 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digest, "FILES_AT_ONCE", 2)
    assert digest_of("photos") == before


def test_other_names_sizes_and_labels_are_told_apart(photos):
    before = digest_of(photos)
    with (photos / "a" / "1.png").open("ab") as file:
        file.write(b"more")
    assert others(before, digest_of(photos)) == {"sizes"}
    (photos / "a" / "1.png").rename(photos / "a" / "1a.png")
    assert others(before, digest_of(photos)) == {"names", "sizes"}
    before = digest_of(photos)
    (photos / "b" / "0.png").rename(photos / "a" / "9.png")
    assert others(before, digest_of(photos)) >= {"names", "labels"}
    assert others(before, digest_of(photos, num_images=5)) == set(before)


def test_what_is_no_file_has_a_name_alone():
    class Records(ImageSource):
        labels = np.zeros(2, np.int32)
        instances = None

        def __len__(self):
            return 2

        def describe(self, index):
            return f"/data/set\0 [{index}]"

    found = data_digest(Records(), root=None)
    assert found == data_digest(Records(), root="/elsewhere")
    assert {len(value) for value in found.values()} == {64}


def test_known_instances_are_a_part_of_the_set(photos):
    plain, known = digest_of(photos), digest_of(photos, instances="1")
    assert others(known, plain | {"instances": ""}) == {"instances"}
    assert known == digest_of(photos, instances="1")
    (photos / "a" / "x").mkdir()
    (photos / "a" / "0.png").rename(photos / "a" / "x" / "0.png")
    assert plain.keys() == {"names", "sizes", "labels"}
    assert others(digest_of(photos, instances="2"), known) >= {"instances"}


def test_photos_of_large_files_have_the_sizes_that_their_index_knows(tmp_path):
    photos = [plain_photo(20 * number) for number in range(3)]

    def digest_of_tar(photos):
        path = write_tar(tmp_path / "set" / "a.tar", samples(photos, [0, 1, 0]))
        os.utime(path, ns=(len(photos[1]), len(photos[1])))
        return digest_of(tmp_path / "set", source="webdataset")

    before = digest_of_tar(photos)
    assert digest_of_tar(photos) == before
    assert others(digest_of_tar([photos[0], b"other", photos[2]]), before) == {"sizes"}
