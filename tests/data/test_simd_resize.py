import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.crops import random_crop_box, resize_crop
from multigrain_jax.data.simd_resize import (
    crop_resizer,
    resolve_crop_resize,
    simd_resize_crop,
)
from multigrain_jax.errors import InputError


@pytest.fixture
def simd():
    return pytest.importorskip("cykooz_resizer")


def make_photo(seed, size):
    """Smooth shapes with noise, as photos have them."""
    rng = np.random.default_rng(seed)
    few = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    smooth = np.asarray(few.resize(size, Image.Resampling.BICUBIC), np.float64)
    noisy = smooth + rng.normal(0, 12, smooth.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photo():
    return make_photo(0, (500, 375))


def boxes(count):
    rng = np.random.default_rng(1)
    found = [random_crop_box(rng, 500, 375, area_min=0.01) for _ in range(count)]
    # One pixel, one column, one row, the whole, and an enlargement.
    odd = [(9, 8, 10, 9), (3, 0, 4, 375), (0, 7, 500, 8), (0, 0, 500, 375)]
    return [*found, *odd, (100, 100, 130, 140)]


@pytest.mark.parametrize("size", [8, 96, 224])
def test_few_values_are_one_off_and_hardly_any_two(simd, photo, size):
    different = by_two = total = 0
    for box in boxes(30):
        got = np.asarray(simd_resize_crop(photo, box, size))
        assert got.shape == (size, size, 3) and got.dtype == np.uint8
        want = np.asarray(resize_crop(photo, box, size))
        differences = got.astype(int) - want
        # One at most in each direction.
        assert abs(differences).max() <= 2
        assert abs(differences.mean()) < 0.02
        different += (differences != 0).sum()
        by_two += (abs(differences) == 2).sum()
        total += differences.size
    assert different < 0.08 * total
    assert by_two < 1e-6 * total


def test_a_value_can_be_two_off(simd):
    """Where both directions round to the same other side: documented, and rare."""
    photo, box = make_photo(42, (342, 242)), (186, 30, 266, 94)
    got = np.asarray(simd_resize_crop(photo, box, 224)).astype(int)
    differences = abs(got - np.asarray(resize_crop(photo, box, 224)))
    assert differences.max() == 2
    assert (differences == 2).sum() < 10


def test_bits_do_not_depend_on_the_processor(simd, photo, monkeypatch):
    whole = boxes(10)
    usual = [simd_resize_crop(photo, box, 96) for box in whole]
    plain = simd.Resizer()
    plain.cpu_extensions = simd.CpuExtensions.none
    assert plain.cpu_extensions == simd.CpuExtensions.none
    monkeypatch.setattr(simd, "Resizer", lambda: plain)
    # A thread makes a resizer of its own.
    with ThreadPoolExecutor(1) as thread:
        found = thread.map(lambda box: simd_resize_crop(photo, box, 96), whole)
    for got, want in zip(found, usual, strict=True):
        np.testing.assert_array_equal(got, want)


def test_threads_do_not_disturb_each_other(simd, photo):
    whole = boxes(40)
    want = [simd_resize_crop(photo, box, 64) for box in whole]
    wrong = []

    def work():
        for box, expected in zip(whole, want, strict=True):
            if not np.array_equal(simd_resize_crop(photo, box, 64), expected):
                wrong.append(box)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_missing_package_and_another_name_are_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert resolve_crop_resize("auto") == "pillow"
    assert crop_resizer("pillow") is resize_crop
    with pytest.raises(InputError, match=r"pip install cykooz-resizer.*\"pillow\""):
        crop_resizer("simd")
    with pytest.raises(InputError, match="found 'nearest', expected auto or one of"):
        crop_resizer("nearest")


def test_the_faster_one_is_taken_where_it_is_installed(simd):
    assert resolve_crop_resize("auto") == "simd"
    assert crop_resizer("simd") is simd_resize_crop
