"""Files of the same bytes and photos of near hashes, in groups; links are one photo."""

import os
import shutil

import numpy as np
import pytest
from helpers.chat import scene
from helpers.photos import encode
from PIL import Image, ImageOps

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors import photo_hashes
from multigrain_jax.descriptors.photo_duplicates import photo_duplicates

NAMES = "a.jpg", "a2.jpg", "b.png", "b_small.jpg", "b_turned.png", "c.png", "link.png"


@pytest.fixture
def paths(tmp_path):
    """One photo twice, one with a smaller copy and a mirrored one, one with a link."""
    (tmp_path / "a.jpg").write_bytes(encode(scene(0), "JPEG"))
    shutil.copy(tmp_path / "a.jpg", tmp_path / "a2.jpg")
    scene(1).save(tmp_path / "b.png")
    scene(1).resize((48, 36)).save(tmp_path / "b_small.jpg", quality=40)
    ImageOps.mirror(scene(1)).save(tmp_path / "b_turned.png")
    scene(2).save(tmp_path / "c.png")
    os.link(tmp_path / "c.png", tmp_path / "link.png")
    return [str(tmp_path / name) for name in NAMES]


def find(paths, hash_distance=24, linkage="single"):
    return photo_duplicates(
        paths, hash_distance=hash_distance, linkage=linkage, decoding=VIEWER
    )


@pytest.mark.parametrize("linkage", ["single", "complete"])
def test_copies_are_found_without_a_network(paths, linkage):
    found = find(paths, linkage=linkage)
    assert [group.tolist() for group in found.groups] == [[2, 3, 4], [0, 1]]
    assert found.same_bytes == {1: 0}
    assert found.pairs.tolist() == [[2, 3], [2, 4], [3, 4]]
    assert found.mirrored.tolist() == [False, True, True]
    assert (found.distances <= 24).all()
    # A link is the file itself: to delete it as a duplicate would be to delete it.
    assert found.links == {6: 5}


def test_without_hashes_only_bytes_count(paths, monkeypatch):
    monkeypatch.setattr(photo_hashes, "hash_files", None)
    found = find(paths, hash_distance=None)
    assert [group.tolist() for group in found.groups] == [[0, 1]]
    assert found.hashes is None and len(found.pairs) == 0
    assert len(found.unreadable()) == 0


def test_each_file_of_the_same_bytes_has_the_hash_of_the_first(paths, tmp_path):
    for name in ("bad.jpg", "bad2.jpg"):
        (tmp_path / name).write_bytes(b"no photo")
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    names = ("bad.jpg", "bad2.jpg", "plain.png")
    found = find([*paths, *(str(tmp_path / name) for name in names)])
    np.testing.assert_array_equal(found.hashes.codes[1], found.hashes.codes[0])
    assert found.unreadable().tolist() == [7, 8]
    assert [8, 7] in [list(pair) for pair in found.same_bytes.items()]
    assert [7, 8] in [group.tolist() for group in found.groups]
