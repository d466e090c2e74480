"""What a network is shown of a photo, decoded fast and exactly."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from helpers.photos import encode, turned_jpeg
from PIL import Image, JpegImagePlugin

from multigrain_jax.data import image_file
from multigrain_jax.data.crops import eval_transform
from multigrain_jax.data.decoding import PLAIN, VIEWER, decode
from multigrain_jax.data.image_file import UndecodableImageError
from multigrain_jax.data.network_image import network_image

FAST = dataclasses.replace(VIEWER, fast=True)
SHOWN = partial(network_image, test_size=64, mode="rect", smallest_side=1)
SIDEWAYS = 6  # EXIF: the photo lies on its side


def smooth_photo(size):
    """A photo without the detail that every resize treats in its own way."""
    # Colours as photos have them: of the strongest, JPEG keeps the edges least.
    noise = np.random.default_rng(0).integers(60, 190, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def jpeg(size, **options):
    return encode(smooth_photo(size), "JPEG", quality=92, **options)


@pytest.fixture
def decoded_sizes(monkeypatch):
    """The sizes at which JPEGs are decoded."""
    sizes = []
    usual = JpegImagePlugin.JpegImageFile.load

    def load(image):
        if image.tile:  # what is decoded already has none
            sizes.append(image.size)
        return usual(image)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    return sizes


@pytest.mark.parametrize("mode", ["square", "rect"])
@pytest.mark.parametrize(
    "size", [(1000, 750), (750, 1000), (1601, 1203), (3000, 200), (255, 255)]
)
def test_fast_and_exact_images_have_one_size_and_nearly_the_same_pixels(size, mode):
    shown = partial(SHOWN, jpeg(size), mode=mode)
    exact, fast = (np.asarray(shown(d).image, int) for d in (VIEWER, FAST))
    assert fast.shape == exact.shape
    difference = np.abs(fast - exact)
    assert difference.max() <= 12 and difference.mean() < 1
    # Which is what evaluation has always shown.
    photo = eval_transform(decode(jpeg(size), VIEWER), 64, mode, smallest_side=1)
    assert np.array_equal(exact, np.asarray(photo))


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((255, 100), (255, 100)),  # half of it is less than 2 · 64
        ((256, 100), (128, 50)),
        ((512, 300), (128, 75)),
        ((4000, 3000), (500, 375)),
        ((100, 1024), (13, 128)),
    ],
)
def test_at_least_twice_the_sides_are_decoded(size, seen, decoded_sizes):
    SHOWN(jpeg(size), FAST)
    assert decoded_sizes == [seen]


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((2000, 9), (2000, 9)),
        ((9, 2000), (9, 2000)),
        ((2000, 127), (2000, 127)),  # half of it is less than 2 · 32
        ((128, 2000), (64, 1000)),
        ((2000, 256), (500, 64)),
    ],
)
def test_of_a_panorama_the_shorter_side_counts_too(size, seen, decoded_sizes):
    exact, fast = (
        np.asarray(SHOWN(jpeg(size), d, smallest_side=32).image, int)
        for d in (VIEWER, FAST)
    )
    assert decoded_sizes == [size, seen]
    assert fast.shape == exact.shape and np.abs(fast - exact).mean() < 1


@pytest.mark.parametrize("decoding", [VIEWER, FAST])
def test_a_header_is_read_once(decoding, monkeypatch):
    opened = []
    usual = image_file._of_its_format

    def counted(file, max_pixels):
        opened.append(max_pixels)
        return usual(file, max_pixels)

    monkeypatch.setattr(image_file, "_of_its_format", counted)
    SHOWN(jpeg((1000, 750)), decoding)
    assert len(opened) == 1


def test_a_photo_over_the_limit_is_reduced_from_what_the_limit_leaves(decoded_sizes):
    # Half of it may be decoded; an eighth is enough.
    few = dataclasses.replace(FAST, max_megapixels=2.5)
    assert SHOWN(jpeg((2401, 1799)), few).image.size == (64, 47)
    assert decoded_sizes == [(301, 225)]


def test_what_is_not_to_be_fast_is_decoded_whole(decoded_sizes):
    SHOWN(jpeg((1000, 750)), PLAIN)
    assert decoded_sizes == [(1000, 750)]


def test_other_formats_are_decoded_whole():
    data = encode(smooth_photo((1000, 750)))
    exact, fast = (np.asarray(SHOWN(data, d).image) for d in (VIEWER, FAST))
    assert np.array_equal(exact, fast)


def test_a_photo_that_lies_on_its_side_is_turned():
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    shown = SHOWN(jpeg((1000, 750), exif=exif), FAST).image
    assert shown.size == (48, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "test_size", "seen"),
    [
        ("rect", 39, (80, 54)),
        ("rect", 78, (159, 107)),
        ("square", 23, (80, 54)),
        ("square", 46, (159, 107)),
    ],
)
def test_a_photo_is_not_shifted_however_it_is_turned(
    mode, test_size, seen, orientation, golden_dir, decoded_sizes
):
    # A photo with detail, and of each side an eighth is one column or row too much.
    with Image.open(golden_dir / "images" / "china.jpg") as photo:
        data = turned_jpeg(photo.crop((0, 0, 633, 425)), orientation)
    decoded_sizes.clear()
    shown = partial(SHOWN, data, mode=mode, test_size=test_size)
    exact, fast = (np.asarray(shown(d).image, int) for d in (VIEWER, FAST))
    assert decoded_sizes == [(633, 425), seen]
    difference = np.abs(fast - exact)
    # A shift of an eighth's width: 3 in the mean, and more; without one 0.8.
    assert difference.max() <= 20 and difference.mean() < 1.5


def test_what_is_cut_is_read_with_a_note_or_not_at_all():
    data = jpeg((1000, 750))
    assert "end missing" in SHOWN(data[:-2], FAST).notes[0]
    with pytest.raises(UndecodableImageError):
        SHOWN(data[: len(data) // 2], FAST)
    with pytest.raises(UndecodableImageError, match="not an image file"):
        SHOWN(b"no photo", FAST)
