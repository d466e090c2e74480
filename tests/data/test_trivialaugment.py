import numpy as np
import pytest
from helpers.photos import noise_photo
from PIL import Image, ImageEnhance, ImageOps

from multigrain_jax.data.trivialaugment import (
    NAMES,
    NUM_MAGNITUDES,
    WIDE,
    apply_trivial,
    apply_wide,
)

SIZE = 56
PHOTO = noise_photo(0, size=(SIZE, SIZE), brightest=200)
UNCHANGED_AT_ZERO = set(NAMES) - {"autocontrast", "equalize"}


def values(image):
    return np.asarray(image).astype(int)


def test_the_space_is_the_papers():
    assert len(NAMES) == 14
    assert NUM_MAGNITUDES == 31


@pytest.mark.parametrize("name", NAMES)
def test_magnitude_zero_is_the_image_itself_and_more_changes_more(name):
    zero = apply_wide(PHOTO, name, 0)
    assert (np.array_equal(values(zero), values(PHOTO))) == (name in UNCHANGED_AT_ZERO)
    strongest = apply_wide(PHOTO, name, 30)
    assert (strongest.mode, strongest.size) == ("RGB", (SIZE, SIZE))
    has_magnitude = WIDE[name].low != WIDE[name].high
    assert np.array_equal(values(strongest), values(zero)) != has_magnitude
    other = apply_wide(PHOTO, name, 30, sign=-1)
    assert np.array_equal(values(strongest), values(other)) != WIDE[name].signed


# Each range of the paper's table, by Pillow itself.
EXPECTED = {
    ("rotate", 30, 1): lambda x: x.rotate(135, fillcolor=(128,) * 3),
    ("rotate", 10, -1): lambda x: x.rotate(-45, fillcolor=(128,) * 3),
    ("solarize", 15, 1): lambda x: ImageOps.solarize(x, 128),
    ("solarize", 30, 1): ImageOps.invert,
    ("posterize", 30, 1): lambda x: ImageOps.posterize(x, 2),
    ("posterize", 10, 1): lambda x: ImageOps.posterize(x, 6),
    ("color", 30, -1): lambda x: ImageEnhance.Color(x).enhance(1 - 0.99),
    ("brightness", 30, 1): lambda x: ImageEnhance.Brightness(x).enhance(1.99),
    ("contrast", 10, 1): lambda x: ImageEnhance.Contrast(x).enhance(1.33),
    ("sharpness", 20, -1): lambda x: ImageEnhance.Sharpness(x).enhance(1 - 0.66),
    ("equalize", 7, 1): ImageOps.equalize,
    ("autocontrast", 7, 1): ImageOps.autocontrast,
}


@pytest.mark.parametrize("case", EXPECTED, ids=str)
def test_operations_are_pillows_at_the_tables_values(case):
    name, magnitude, sign = case
    got = apply_wide(PHOTO, name, magnitude, sign=sign)
    np.testing.assert_array_equal(values(got), values(EXPECTED[case](PHOTO)))


def test_the_largest_shift_is_32_pixels_of_224():
    pixels = values(PHOTO)
    moved = values(apply_wide(PHOTO, "translate_x", 30))  # 8 of 56, to the left
    np.testing.assert_array_equal(moved[:, : SIZE - 8], pixels[:, 8:])
    assert (moved[:, SIZE - 8 :] == 128).all()
    moved = values(apply_wide(PHOTO, "translate_y", 15, sign=-1))
    np.testing.assert_array_equal(moved[4:], pixels[: SIZE - 4])
    assert (moved[:4] == 128).all()


def test_the_strongest_shear_is_0_99_of_the_height():
    white = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    sheared = values(apply_wide(white, "shear_x", 30))
    filled = (sheared[..., 0] < 200).sum(axis=1)
    # Row y is filled over 0.99 y pixels, give or take the interpolation's border.
    assert np.abs(filled - 0.99 * np.arange(SIZE)).max() <= 3


def test_every_operation_and_magnitude_comes_up_as_often():
    seen = {name: 0 for name in NAMES}
    flipped, magnitudes = 0, np.zeros(NUM_MAGNITUDES, int)
    for position in range(2000):
        rng = np.random.default_rng(position)
        flip, chosen, magnitude, _ = np.random.default_rng(position).random(4)
        seen[NAMES[int(chosen * 14)]] += 1
        flipped += flip < 0.5
        magnitudes[int(magnitude * NUM_MAGNITUDES)] += 1
        if position < 60:
            want = ImageOps.mirror(PHOTO) if flip < 0.5 else PHOTO
            got = apply_trivial(rng, PHOTO)
            if NAMES[int(chosen * 14)] == "identity":
                np.testing.assert_array_equal(values(got), values(want))
            # Always four draws.
            assert rng.random() == np.random.default_rng(position).random(5)[4]
    assert min(seen.values()) > 100
    assert magnitudes.min() > 35
    assert 900 < flipped < 1100
