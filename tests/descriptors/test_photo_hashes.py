"""Hashes of photos change little where a photo does, and are made of many at once."""

import sys

import numpy as np
import pytest
from helpers.chat import scene
from helpers.photos import encode
from PIL import Image, ImageOps

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors import photo_hashes as module
from multigrain_jax.descriptors.photo_hashes import (
    PLAIN,
    READY,
    UNREADABLE,
    hash_files,
    hash_photo,
    require_hashes,
)
from multigrain_jax.errors import InputError


def bits(a, b):
    return int(np.bitwise_count(a ^ b).sum())


def between_bars(image):
    shown = Image.new("RGB", (image.width, image.height + 40), (3, 3, 3))
    shown.paste(image, (0, 20))
    return shown


@pytest.mark.parametrize(
    ("edit", "most"),
    [
        (lambda image: image.resize((48, 36)), 8),
        (lambda image: image.point(lambda value: value * 0.8), 8),
        (between_bars, 8),
        (lambda image: image.crop((3, 2, 94, 70)), 24),
    ],
)
def test_a_copy_is_near_and_another_photo_is_not(edit, most):
    for seed in range(5):
        image = scene(seed)
        code, mirrored = hash_photo(image)
        copy, _ = hash_photo(edit(image))
        assert bits(code, copy) <= most
        assert bits(mirrored, hash_photo(ImageOps.mirror(image))[0]) <= 2
        for other in range(seed):
            assert bits(code, hash_photo(scene(other))[0]) > 32


def test_what_is_plain_has_no_hash():
    assert hash_photo(Image.new("RGB", (40, 30), (250, 250, 250))) is None
    # A line at the edge is no picture, and a plain photo is not cut to nothing.
    image = Image.new("L", (40, 30), 200).convert("RGB")
    image.paste((205, 205, 205), (0, 0, 40, 1))
    assert hash_photo(image) is None


def test_files_are_hashed_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PHOTOS_WAITING", 2)
    photos = [scene(seed) for seed in range(3)]
    paths = [tmp_path / f"{n}.jpg" for n in range(6)]
    for path, photo in zip(paths, photos, strict=False):
        path.write_bytes(encode(photo))
    paths[3].write_bytes(b"no photo")
    paths[4].write_bytes(encode(Image.new("RGB", (40, 30))))
    found = hash_files([str(path) for path in paths], decoding=VIEWER)
    assert found.states.tolist() == [*[READY] * 3, UNREADABLE, PLAIN, UNREADABLE]
    for row, photo in enumerate(photos):
        code, mirrored = hash_photo(photo)
        np.testing.assert_array_equal(found.codes[row], code)
        np.testing.assert_array_equal(found.mirrored[row], mirrored)
    assert not found.codes[3:].any() and not found.mirrored[3:].any()


def test_without_the_library_the_remedy_is_told(monkeypatch):
    require_hashes()
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert not module.can_hash()
    with pytest.raises(InputError, match=r"pip install -e '\.\[duplicates\]'"):
        require_hashes()
