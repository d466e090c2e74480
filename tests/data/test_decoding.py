"""How files become RGB: every small input that once went wrong, and what is right."""

import dataclasses
import hashlib
import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image

from configs import base, eval_base, search
from multigrain_jax.data.decoding import (
    PLAIN,
    VIEWER,
    Decoding,
    UndecodableImageError,
    decode,
    decode_noted,
    decoding_of_record,
    encoded_size,
    rgb_of_opened,
)
from multigrain_jax.data.image_file import quiet_pillow
from multigrain_jax.data.orientation import TAG

CASES = Path(__file__).parents[1] / "cases"
UPRIGHT = dataclasses.replace(VIEWER, pixels="upright")
END_MISSING = ("read, end missing",)
# case -> size, a file with nearly the same pixels, and what is noted
READ = {
    "UPPER.JPEG": ((96, 64), "plain.jpg", ()),
    "anim.webp": (
        (96, 64),
        None,
        ("the first frame that is not plain is shown, 2 of 3",),
    ),
    "badcrc_text.png": (
        (96, 64),
        "rgb16.png",
        ("read, parts beside its pixels are damaged",),
    ),
    "badicc.jpg": (
        (96, 64),
        "plain.jpg",
        ("its colour profile cannot be used: colours are taken as sRGB",),
    ),
    "bit.png": ((96, 64), None, ()),
    "cmyk.jpg": ((96, 64), "plain.jpg", ()),
    "double_exif.jpg": ((96, 64), "plain.jpg", ()),
    "empty_exif.jpg": ((96, 64), "plain.jpg", ()),
    "eoi_missing.jpg": ((400, 300), "trailing.jpg", END_MISSING),
    "exif_badoffset.jpg": ((64, 96), "orient6.jpg", ()),
    "exif_undefined5.jpg": ((64, 96), "orient6.jpg", ()),
    "garbage_exif.jpg": ((96, 64), "plain.jpg", ()),
    "gps00.jpg": ((64, 96), "orient6.jpg", ()),
    "grey16.png": ((96, 64), None, ()),
    "lab.tif": ((96, 64), None, ()),
    "line.png": ((1, 3000), None, ()),
    "logo_rgba.png": ((96, 64), "logo_white.jpg", ()),
    "logo_white.jpg": ((96, 64), None, ()),
    "one.png": ((1, 1), None, ()),
    "orient0.jpg": ((96, 64), "plain.jpg", ()),
    "orient6.jpg": ((64, 96), None, ()),
    "orient65535.jpg": ((96, 64), "plain.jpg", ()),
    "orient9.jpg": ((96, 64), "plain.jpg", ()),
    "orient_ascii.jpg": ((64, 96), "orient6.jpg", ()),
    "other.avif": ((96, 64), "plain.jpg", ()),
    "other.bmp": ((96, 64), "plain.jpg", ()),
    "other.gif": ((96, 64), "plain.jpg", ()),
    "other.jfif": ((96, 64), "plain.jpg", ()),
    "other.jp2": ((96, 64), "plain.jpg", ()),
    "other.jpe": ((96, 64), "plain.jpg", ()),
    "other.tif": ((96, 64), "plain.jpg", ()),
    "plain.jpg": ((96, 64), None, ()),
    "png_exif6.png": ((64, 96), "orient6.jpg", ()),
    "really_avif.jpg": ((96, 64), "plain.jpg", ()),
    "rgb16.png": ((96, 64), "plain.jpg", ()),
    "trailing.jpg": ((400, 300), None, ()),
}
REFUSED = {"trunc.jpg": "truncated"}
NOTED_DARK = "grey12in16.png"


def pixels(name, decoding=VIEWER):
    image = decode((CASES / name).read_bytes(), decoding)
    assert image.mode == "RGB"
    return np.asarray(image, np.float64)


def test_all_cases_are_looked_at():
    assert {path.name for path in CASES.iterdir()} == {*READ, *REFUSED, NOTED_DARK}


@pytest.mark.parametrize("name", READ)
def test_cases_are_read_as_a_viewer_shows_them(name):
    size, alike, notes = READ[name]
    data = (CASES / name).read_bytes()
    found = decode_noted(data, VIEWER)
    assert (found.image.mode, found.image.size) == ("RGB", size)
    assert encoded_size(io.BytesIO(data), VIEWER) == size
    assert found.notes == notes
    if alike is not None:
        # Noise of strong colours: lossy formats and palettes change it by some values.
        difference = np.abs(np.asarray(found.image, np.float64) - pixels(alike))
        assert difference.mean() < 25 and np.median(difference) < 20


@pytest.mark.parametrize("name", READ)
def test_an_opened_image_gives_the_pixels_of_its_file(name):
    data = (CASES / name).read_bytes()
    try:
        with quiet_pillow():  # which warns of what lies beside the pixels
            opened = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError:
        assert name == "badcrc_text.png"  # nobody can open it for us
        return
    with opened:
        found = rgb_of_opened(opened, VIEWER)
    np.testing.assert_array_equal(found, decode(data, VIEWER))


@pytest.mark.parametrize("name", REFUSED)
def test_missing_rows_are_refused(name):
    with pytest.raises(UndecodableImageError, match=REFUSED[name]):
        decode((CASES / name).read_bytes(), VIEWER)


def test_grey_cases_are_the_grey_of_the_colours():
    grey = pixels("plain.jpg") @ [0.299, 0.587, 0.114]
    assert np.abs(pixels("grey16.png")[..., 0] - grey).mean() < 4
    bits = pixels("bit.png")
    assert set(np.unique(bits)) == {0, 255}
    assert abs(bits.mean() - grey.mean()) < 3


def test_lab_is_the_colour_that_it_says():
    from PIL import ImageCms

    rgb = noise_photo(0, brightest=256)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(rgb, to_lab)
    found = np.asarray(decode(encode(lab, "TIFF"), VIEWER), np.int16)
    difference = np.abs(found - np.asarray(rgb, np.int16))
    # Lab of 8 bits cannot tell all colours apart.
    assert difference.mean() < 1.5 and np.percentile(difference, 99) < 20


def test_twelve_bits_in_sixteen_are_dark_with_a_note_and_bright_on_request():
    data = (CASES / NOTED_DARK).read_bytes()
    found = decode_noted(data, VIEWER)
    assert np.asarray(found.image).max() == 15
    (note,) = found.notes
    assert "a sixteenth" in note and "--config.data.depth=maximum" in note
    brightest = dataclasses.replace(VIEWER, depth="maximum")
    bright = decode_noted(data, brightest)
    assert not [note for note in bright.notes if "depth=maximum" not in note]
    grey = pixels("plain.jpg") @ [0.299, 0.587, 0.114]
    assert np.asarray(bright.image).max() == 255
    assert np.abs(np.asarray(bright.image, float)[..., 0] - grey).mean() < 12


def test_transparent_drawings_are_those_on_white():
    drawing, on_white = pixels("logo_rgba.png"), pixels("logo_white.jpg")
    assert np.abs(drawing - on_white).mean() < 2
    red = dataclasses.replace(VIEWER, background=(255, 0, 0))
    assert pixels("logo_rgba.png", red)[0, 0].tolist() == [255, 0, 0]


# sha256 of the pixels, by the version before photos were shown as viewers do.
ORDINARY = {
    "plain.jpg": "84e16bcafcdc2f47",
    "orient6.jpg": "a426e469e53fed0d",
    "UPPER.JPEG": "84e16bcafcdc2f47",
}


@pytest.mark.parametrize("decoding", [VIEWER, UPRIGHT], ids=lambda d: d.pixels)
def test_ordinary_jpegs_keep_their_bits(decoding, golden_dir):
    files = {CASES / name: digest for name, digest in ORDINARY.items()}
    files[golden_dir / "images" / "china.jpg"] = "e701459344fd6979"
    for path, digest in files.items():
        found = np.asarray(decode(path.read_bytes(), decoding))
        assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", ["eoi_missing.jpg", "badcrc_text.png", "trunc.jpg"])
@pytest.mark.parametrize("decoding", [PLAIN, UPRIGHT], ids=lambda d: d.pixels)
def test_benchmarks_take_sound_files_alone(name, decoding):
    with pytest.raises(UndecodableImageError):
        decode((CASES / name).read_bytes(), decoding)


def test_the_plain_ways_see_what_they_always_saw():
    assert pixels("logo_rgba.png", PLAIN).max() == 0
    assert pixels("anim.webp", PLAIN).max() == 0
    assert pixels("orient6.jpg", PLAIN).shape == (64, 96, 3)
    assert pixels("orient6.jpg", UPRIGHT).shape == (96, 64, 3)
    sideways = (CASES / "png_exif6.png").read_bytes()
    assert encoded_size(io.BytesIO(sideways), PLAIN) == (96, 64)


def test_records_are_read_back():
    for decoding in (
        PLAIN,
        UPRIGHT,
        VIEWER,
        Decoding("viewer", (1, 2, 3), "maximum", 5, fast=False),
        Decoding("viewer", (1, 2, 3), "maximum", 5, fast=True),
        Decoding("upright", (255, 255, 255), "metadata", 5, fast=True),
    ):
        found = decoding_of_record(decoding.record(), max_megapixels=5)
        assert found.record() == decoding.record()
        assert found.max_megapixels == 5
        if decoding.pixels == "viewer":
            assert found == dataclasses.replace(decoding, max_megapixels=5)
    for record in (
        "",
        "viewer",
        "fast",
        "plain, fast, fast",
        "viewer, background red, depth metadata",
        "better",
    ):
        with pytest.raises((ValueError, IndexError)):
            decoding_of_record(record, max_megapixels=5)


def test_recipes_decode_as_what_has_no_recipe():
    for recipe in (base, eval_base):
        data = recipe.get_config().data
        assert (data.decoding, data.background, data.depth) == (
            "auto",
            "white",
            "metadata",
        )
        assert data.max_megapixels == VIEWER.max_megapixels
    assert search.get_config().data.max_megapixels == VIEWER.max_megapixels


def test_no_warning_of_pillows_gets_out():
    broken = (CASES / "exif_badoffset.jpg").read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(broken)) as image:
            image.load()
    assert caught, "Pillow does not warn of this any more: take another file"
    before = list(warnings.filters)
    failures = []

    def read():
        try:
            decode(broken, VIEWER)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and list(warnings.filters) == before


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_turned_upright(kind, orientation):
    from PIL import ImageOps

    photo = noise_photo(orientation, (40, 30), brightest=256)
    exif = Image.Exif()
    exif[TAG] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encode(photo, kind, exif=exif, **lossless)
    found = decode(data, VIEWER)
    with Image.open(io.BytesIO(data)) as opened:
        # Pillow turns a TIFF when it is loaded.
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    np.testing.assert_array_equal(found, expected)
    assert found.size == ((30, 40) if orientation > 4 else (40, 30))
    assert encoded_size(io.BytesIO(data), VIEWER) == found.size


def test_damaged_files_are_refused(golden_dir):
    whole = (golden_dir / "images" / "china.jpg").read_bytes()
    for data in (b"", b"no image", whole[: len(whole) // 2], whole[:100]):
        for decoding in (VIEWER, PLAIN):
            with pytest.raises(UndecodableImageError):
                decode(data, decoding)


def test_thumbnails_are_decoded_at_a_fraction_of_the_size(golden_dir):
    data = (golden_dir / "images" / "china.jpg").read_bytes()
    assert decode(data, VIEWER, side=160).size == (160, 107)
    assert decode(data, VIEWER, side=321).size == (640, 427)
    # Formats without smaller sizes come whole.
    assert decode((CASES / "rgb16.png").read_bytes(), VIEWER, side=10).size == (96, 64)
