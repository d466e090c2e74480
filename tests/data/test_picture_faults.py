"""What a picture is like, against plain loops and pictures made to be so."""

import os

import numpy as np
import pytest
from helpers.bombs import BOMBS
from helpers.photos import encode, noise_photo
from PIL import Image, ImageFilter

from multigrain_jax.data.picture_faults import (
    BLUR_WINDOW,
    LOOKED_AT,
    blur_effect,
    look_at,
    look_at_file,
)


def plain_blur(grey):
    """Crete et al., as their formulas have it, where the window is whole."""
    half, found = BLUR_WINDOW // 2, []
    for values in (grey, grey.T):
        total = kept = 0.0
        height, width = values.shape
        for x in range(width):
            for y in range(half + 1, height - half):
                own = abs(values[y, x] - values[y - 1, x])
                here = values[y - half : y + half + 1, x].mean()
                above = values[y - half - 1 : y + half, x].mean()
                total += own
                kept += max(0, own - abs(here - above))
        found.append(1 - kept / total)
    return max(found)


def test_blur_equals_the_plain_loops():
    rng = np.random.default_rng(0)
    for shape in ((10, 25), (30, 17)):
        grey = rng.random(shape)
        assert blur_effect(grey) == pytest.approx(plain_blur(grey), abs=1e-6)


def edges(size=(700, 500)):
    """Overlapping rectangles of many greys: sharp."""
    rng = np.random.default_rng(1)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for _ in range(60):
        x, y = rng.integers(0, size[0] - 40), rng.integers(0, size[1] - 40)
        pixels[y : y + rng.integers(20, 200), x : x + rng.integers(20, 200)] = (
            rng.integers(0, 256, 3)
        )
    return Image.fromarray(pixels)


def test_the_more_a_picture_is_blurred_the_larger_is_its_blur():
    blurs = []
    for radius in (0, 1, 2, 4, 8):
        facts = look_at(edges().filter(ImageFilter.GaussianBlur(radius)))
        assert facts.blur is not None
        blurs.append(facts.blur)
    assert blurs == sorted(blurs) and blurs[0] < 0.3 and blurs[-1] > 0.7
    assert blur_effect(np.full((40, 40), 0.5)) is None
    assert blur_effect(np.eye(BLUR_WINDOW)) is None


def test_brightness_and_shades_are_those_of_most_pixels():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:4] = 255  # a lamp at night
    facts = look_at(Image.fromarray(pixels))
    assert facts.brightness == 0
    assert facts.one_shade == pytest.approx(0.96)
    pixels[:6] = 255
    assert look_at(Image.fromarray(pixels)).brightness == pytest.approx(1)
    # Of one luminance, and of two colours.
    pixels[:50], pixels[50:] = (200, 0, 0), (0, 102, 0)
    assert look_at(Image.fromarray(pixels)).one_shade < 0.6
    assert look_at(Image.new("L", (30, 30), 77)).one_shade == 1


def test_a_file_tells_its_whole_size_and_what_is_no_picture_nothing(tmp_path):
    for kind in ("PNG", "JPEG"):
        path = tmp_path / f"photo.{kind}"
        path.write_bytes(encode(noise_photo(0, (1300, 900)), kind))
        facts = look_at_file(path)
        assert facts is not None
        assert (facts.width, facts.height) == (1300, 900)
        assert max(900, 1300) > LOOKED_AT
    for data in (b"", b"no photo", path.read_bytes()[:300]):
        (tmp_path / "broken.jpg").write_bytes(data)
        assert look_at_file(tmp_path / "broken.jpg") is None
    assert look_at_file(tmp_path / "gone.jpg") is None
    assert look_at_file(tmp_path) is None


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_cannot_be_looked_at(tmp_path, name):
    (tmp_path / "bomb.jpg").write_bytes(BOMBS[name])
    assert look_at_file(tmp_path / "bomb.jpg") is None


def test_a_pipe_cannot_be_looked_at(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert look_at_file(tmp_path / "pipe.jpg") is None


def test_a_photo_that_pillow_finds_too_large_is_looked_at(tmp_path, monkeypatch):
    """As one of 200 megapixels, which is decoded at a fraction of its size."""
    (tmp_path / "large.jpg").write_bytes(encode(noise_photo(0, (640, 480)), "JPEG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    facts = look_at_file(tmp_path / "large.jpg")
    assert facts is not None and facts.width is None and facts.blur is not None
