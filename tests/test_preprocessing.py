"""A path is a photo too; the pixels themselves are tested in test_inference.py."""

import numpy as np
import pytest
from helpers.photos import noise_photo
from PIL import Image

from multigrain_jax.data.orientation import TAG
from multigrain_jax.errors import InputError
from multigrain_jax.preprocessing import preprocess


@pytest.mark.parametrize("mode", ["square", "rect"])
def test_a_path_is_the_photo_in_it(tmp_path, monkeypatch, mode):
    exif = Image.Exif()
    exif[TAG] = 6
    noise_photo(0, (60, 40)).save(tmp_path / "one.jpg", exif=exif)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Image.open(tmp_path / "one.jpg") as photo:
        expected = preprocess(photo, 36, mode, backbone="tiny")
    for path in (tmp_path / "one.jpg", str(tmp_path / "one.jpg"), "~/one.jpg"):
        found = preprocess(path, 36, mode, backbone="tiny")
        np.testing.assert_array_equal(found, expected)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"photo: .*bad\.jpg cannot be read \("):
        preprocess(tmp_path / "bad.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read \(No such file"):
        preprocess(tmp_path / "gone.jpg")
