import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.photos import noise_photo
from PIL import Image, ImageOps

from multigrain_jax.data import copies
from multigrain_jax.data.copies import COPY_EDITS, EDITS, apply_copies

SIZE = 64


def generator(position):
    return np.random.Generator(np.random.Philox(key=(5 << 64) | position))


def smooth_photo(seed, size=SIZE):
    """Large patches of colour: an edit changes it, and leaves it to be recognised."""
    coarse = noise_photo(seed, size=(6, 6), brightest=256)
    return coarse.resize((size, size), Image.Resampling.BICUBIC)


def bits(image):
    return np.asarray(image).tobytes()


def distance(image, other):
    return float(np.abs(np.asarray(image, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("name", COPY_EDITS)
def test_an_edit_is_a_function_of_its_draws_and_its_level(name):
    for size in (33, SIZE):
        photo = smooth_photo(1, size)
        before = bits(photo)
        for level in (0.0, 0.3, 1.0):
            edited = EDITS[name](generator(0), photo, level)
            assert (edited.mode, edited.size) == ("RGB", (size, size))
            assert bits(edited) == bits(EDITS[name](generator(0), photo, level))
        assert bits(photo) == before, "the photo is another view's too"


@pytest.mark.parametrize("name", COPY_EDITS)
def test_a_stronger_edit_changes_more(name):
    photos = [smooth_photo(n) for n in range(12)]

    def change(level):
        edited = [EDITS[name](generator(n), p, level) for n, p in enumerate(photos)]
        return np.mean([distance(e, p) for e, p in zip(edited, photos, strict=True)])

    assert change(0.25) < change(1.0)


def test_rotations_stay_below_the_benchmarks():
    # A bright point in the middle of the upper edge goes sideways by half the side
    # times the sine of the angle.
    size = 201
    photo = Image.new("RGB", (size, size))
    photo.paste((255, 255, 255), (98, 9, 103, 14))
    shifts = []
    for position in range(40):
        turned = copies.rotate(generator(position), photo, 1.0)
        row = np.asarray(turned)[11, 40:160].astype(int).sum(axis=1)
        shifts.append(int(np.argmax(row)) + 40 - 100)
    most = 89 * math.sin(math.radians(copies.ROTATION_DEGREES))
    assert min(shifts) < -most + 4
    assert max(shifts) > most - 4
    assert max(map(abs, shifts)) <= most + 3


def test_overlaid_bars_are_upright_rectangles():
    grey = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    for position in range(30):
        values = np.asarray(copies.overlay_bars(generator(position), grey, 0.01))
        changed = (values != 128).any(axis=2)
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        # One bar at such a level: a full rectangle, nothing round.
        np.testing.assert_array_equal(changed, rows[:, None] & columns[None, :])


def test_the_strongest_jpeg_is_pillows_of_that_quality(tmp_path):
    photo = smooth_photo(2)
    photo.save(tmp_path / "photo.jpg", quality=10)
    with Image.open(tmp_path / "photo.jpg") as want:
        got = copies.reencode(generator(0), photo, 1.0)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_text_leaves_ink_of_one_colour():
    black = Image.new("RGB", (SIZE, SIZE))
    inked = 0
    for position in range(20):
        values = np.asarray(copies.overlay_text(generator(position), black, 0.8))
        values = values.reshape(-1, 3).astype(float)
        brightest = values[values.sum(axis=1).argmax()]
        if not brightest.any():
            continue
        inked += 1
        # Every pixel is the ground, or the ink at some opacity.
        share = values.sum(axis=1, keepdims=True) / brightest.sum()
        assert np.abs(values - share * brightest).max() <= 2
    assert inked > 15


def test_some_views_are_left_alone_and_others_edited_much():
    photo = smooth_photo(3)
    plain = {bits(photo), bits(ImageOps.mirror(photo))}
    seen = [bits(apply_copies(generator(n), photo)) for n in range(150)]
    # A fifth has a strength too low for any edit.
    alone = sum(view in plain for view in seen)
    assert plain <= set(seen)
    assert 15 < alone < 55
    assert len(set(seen)) > 150 - alone


def test_every_kind_of_edit_comes_up_as_often_and_at_most_four_together(monkeypatch):
    calls = []
    for name in COPY_EDITS:

        def record(rng, image, level, name=name):
            assert 0 <= level <= 1
            calls.append(name)
            return image

        monkeypatch.setitem(EDITS, name, record)
    photo, chains = smooth_photo(4), []
    for position in range(600):
        calls.clear()
        apply_copies(generator(position), photo)
        chains.append(tuple(calls))
    assert {len(chain) for chain in chains} == set(range(copies.MAX_EDITS + 1))
    assert all(len(set(chain)) == len(chain) for chain in chains)
    counts = [sum(name in chain for chain in chains) for name in COPY_EDITS]
    # Two edits a view on average, of nine kinds: 133 of each, give or take 10.
    assert min(counts) > 90
    assert max(counts) < 180
    assert sum(chain != tuple(sorted(chain)) for chain in chains) > 100


def test_threads_make_the_same_views():
    photo = smooth_photo(5)
    copies._glyph.cache_clear()

    def view(position):
        return bits(apply_copies(generator(position), photo))

    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(view, range(80)))
    copies._glyph.cache_clear()
    assert threaded == [view(position) for position in range(80)]
