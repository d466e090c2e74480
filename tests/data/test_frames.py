"""Which frame of a file is shown, through the decoding that asks."""

import io

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image

from multigrain_jax.data import frames
from multigrain_jax.data.decoding import VIEWER, decode_noted, rgb_of_opened


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_the_first_frame_that_is_not_plain_is_shown(kind):
    black, photo = Image.new("RGB", (40, 30)), noise_photo(0, (40, 30), brightest=256)
    # Not a difference to the first one: every format keeps such frames whole.
    data = encode(black, kind, save_all=True, append_images=[photo, black], duration=9)
    found = decode_noted(data, VIEWER)
    assert np.asarray(found.image).std() > 20
    assert found.notes == ("the first frame that is not plain is shown, 2 of 3",)
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(rgb_of_opened(opened, VIEWER), found.image)
        assert opened.tell() == 0


def test_plain_films_show_their_first_frame():
    black, grey = Image.new("RGB", (40, 30)), Image.new("RGB", (40, 30), (90, 90, 90))
    data = encode(black, "GIF", save_all=True, append_images=[grey], duration=9)
    found = decode_noted(data, VIEWER)
    assert np.asarray(found.image).max() == 0 and found.notes == ()


def test_few_frames_of_large_films_are_tried(monkeypatch):
    black, photo = Image.new("RGB", (40, 30)), noise_photo(0, (40, 30), brightest=256)
    others = [Image.new("RGB", (40, 30), (n, n, n)) for n in range(1, 6)]
    data = encode(black, "PNG", save_all=True, append_images=[*others, photo])
    assert decode_noted(data, VIEWER).notes == (
        "the first frame that is not plain is shown, 7 of 7",
    )
    monkeypatch.setattr(frames, "MAX_PIXELS_TRIED", 5 * 40 * 30)
    assert decode_noted(data, VIEWER).notes == ()
