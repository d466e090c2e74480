"""Training crops of large photos that are decoded at a fraction of their size."""

import dataclasses

import numpy as np
import pytest
from helpers.photos import encode, noise_photo, turned_jpeg
from PIL import Image

from multigrain_jax.data import reading, train_batches
from multigrain_jax.data.crops import resize_crop
from multigrain_jax.data.decoding import VIEWER, decode_reduced
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.train_batches import make_train_batches

BATCH_SIZE = 8
FAST = dataclasses.replace(VIEWER, fast=True)


def make_source(folder, contents, decoding):
    files = []
    for number, data in enumerate(contents):
        path = folder / f"{number}.jpg"
        path.write_bytes(data)
        files.append(ImageFile(str(path), number))
    return FileSource(
        files, class_names=["a", "b", "c"], decoding=decoding, local_cache_dir=None
    )


def make_stream(source):
    return RepeatedStream(
        num_images=len(source),
        num_repeats=3,
        epoch_len_factor=40.0,
        batch_size=BATCH_SIZE,
        seed=1,
    )


def batches(source, **changes):
    options = {
        "train_size": 16,
        "augmentation": "full",
        "crop_area_min": 0.08,
        "crop_resize": "pillow",
        "seed": 5,
        "first_step": 0,
        "num_steps": 6,
        "batch_slice": slice(0, BATCH_SIZE),
        "reading": Reading(0, 3, timeout_s=600.0),
    }
    return list(make_train_batches(source, make_stream(source), **(options | changes)))


def assert_equal_batches(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        for name in one.keys() | other.keys():
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def large_jpegs(size):
    """Photos without the detail that a shift of half a pixel changes much."""
    coarse = [noise_photo(n, (8, 6), brightest=256) for n in range(3)]
    return [encode(c.resize(size, Image.Resampling.BICUBIC), "JPEG") for c in coarse]


@pytest.fixture
def decoded_sizes(monkeypatch):
    """The sizes of images that crops are cut from."""
    sizes = []

    def counted(*arguments, **options):
        found = decode_reduced(*arguments, **options)
        sizes.append(found.image.size)
        return found

    monkeypatch.setattr(reading, "decode_reduced", counted)
    return sizes


def test_large_photos_are_decoded_at_a_fraction_where_all_crops_allow(
    tmp_path, decoded_sizes
):
    contents = large_jpegs((1201, 901))
    exact = make_source(tmp_path, contents, VIEWER)
    fast = make_source(tmp_path, contents, FAST)
    # Of 16 pixels: an eighth has 112 in its shorter side, and crops from 27 on.
    options = {"num_steps": 4, "crop_area_min": 0.3}
    want = batches(exact, **options)
    assert set(decoded_sizes) == {(1201, 901)}
    decoded_sizes.clear()
    got = batches(fast, **options)
    assert {(151, 113)} <= set(decoded_sizes) <= {(151, 113), (301, 226)}
    for one, other in zip(got, want, strict=True):
        for name in one.keys() - {"image"}:
            np.testing.assert_array_equal(one[name], other[name])
        difference = np.abs(one["image"].astype(int) - other["image"])
        # A shift of half a pixel of an eighth is a quarter of one in the crop, of
        # which four are a side of the squares that these photos are made of.
        assert difference.max() <= 255 / 4 / 4 and difference.mean() < 2
    again = batches(fast, first_step=2, num_steps=2, crop_area_min=0.3)
    assert_equal_batches(again, got[2:])
    parts = [
        batches(fast, batch_slice=cut, **options)
        for cut in (slice(0, 3), slice(3, 4), slice(4, 8))
    ]
    for step, batch in enumerate(got):
        joined = np.concatenate([part[step]["image"] for part in parts])
        np.testing.assert_array_equal(joined, batch["image"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_crops_are_not_shifted_however_a_photo_is_turned(
    orientation, golden_dir, tmp_path, decoded_sizes
):
    # A photo with detail, and of each side an eighth is one column or row too much.
    with Image.open(golden_dir / "images" / "china.jpg") as photo:
        data = turned_jpeg(photo.crop((0, 0, 633, 425)), orientation)
    made = []
    for decoding in (VIEWER, FAST):
        source = make_source(tmp_path, [data] * 3, decoding)
        found = batches(source, crop_area_min=0.6)
        made.append(np.concatenate([batch["image"] for batch in found]).astype(int))
    assert {tuple(sorted(size)) for size in decoded_sizes} == {(425, 633), (54, 80)}
    difference = np.abs(made[0] - made[1])
    # A shift by what is not there of a pixel: 4 in the mean, and more; without 1.8.
    assert difference.mean() < 2.5


def test_crops_of_a_reduced_photo_are_at_least_twice_their_size(tmp_path):
    seen = []

    def resize(image, box, size):
        left, top, right, bottom = box
        assert 0 <= left < right <= image.width and 0 <= top < bottom <= image.height
        if image.size != (1600, 1200):
            seen.append((image.size, min(right - left, bottom - top)))
        return resize_crop(image, box, size)

    source = make_source(tmp_path, large_jpegs((1600, 1200)), FAST)
    stream = make_stream(source)
    make = train_batches._Train(
        source=source,
        stream=stream,
        train_size=48,
        augmentation="full",
        crop_area_min=0.08,
        resize=resize,
        seed=5,
        start=0,
        stop=BATCH_SIZE,
    )
    for step in range(12):
        make.batch(step)
    # Edges are rounded: a side may be a pixel shorter.
    assert min(side for _, side in seen) >= 2 * 48 - 1
    assert {size for size, _ in seen} == {(800, 600), (400, 300), (200, 150)}


@pytest.mark.parametrize("size", [(40, 30), (63, 63)])
def test_small_photos_give_the_same_bits_fast(tmp_path, size):
    contents = large_jpegs(size)
    fast, exact = (make_source(tmp_path, contents, d) for d in (FAST, VIEWER))
    assert_equal_batches(batches(fast), batches(exact))
