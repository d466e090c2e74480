"""Pixels of every mode as RGB, against arithmetic and a colour-managed reference."""

import dataclasses
import io
import struct

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from helpers.profiles import PROFILES, delta_e, icc_profile, to_srgb
from PIL import Image, ImageCms

from multigrain_jax.data.decoding import PLAIN, VIEWER, decode, decode_noted
from multigrain_jax.data.mending import PNG_START, png_chunk, png_chunks
from multigrain_jax.data.pixels import BAD_PROFILE

BLUE = (10, 20, 200)
ON_BLUE = dataclasses.replace(VIEWER, background=BLUE)
MAXIMUM = dataclasses.replace(VIEWER, depth="maximum")


def array(data, decoding=VIEWER):
    return np.asarray(decode(data, decoding), np.float64)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_profiles_are_what_a_colour_managed_viewer_shows(name, kind):
    # Smooth colours, since JPEG and AVIF lose fine detail, whatever the profile.
    photo = noise_photo(0, (12, 9), brightest=256).resize((96, 72))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}
    given = options.get(kind, {"quality": 100} if kind == "AVIF" else {})
    data = encode(photo, kind, icc_profile=icc_profile(name), **given)
    expected = to_srgb(array(data, PLAIN), name)
    difference = delta_e(array(data), expected)
    assert difference.mean() < 0.5 and np.percentile(difference, 99) < 2
    unmanaged = delta_e(array(data, PLAIN), expected)
    assert name == "sRGB" or unmanaged.mean() > 3


def test_nothing_is_converted_without_a_profile_or_with_that_of_srgb():
    photo = noise_photo(0, brightest=256)
    pixels = np.asarray(photo)
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (None, b"", icc_profile("sRGB"), built_in):
        np.testing.assert_array_equal(array(encode(photo, icc_profile=profile)), pixels)


@pytest.mark.parametrize("profile", [b"rubbish", bytes(200), icc_profile("sRGB")[:200]])
def test_a_broken_profile_is_noted_and_does_not_count(profile):
    photo = noise_photo(0, brightest=256)
    found = decode_noted(encode(photo, icc_profile=profile), VIEWER)
    np.testing.assert_array_equal(found.image, photo)
    assert found.notes == (BAD_PROFILE,)


def test_a_profile_of_other_colours_does_not_count():
    grey = noise_photo(0).convert("L")
    found = decode_noted(encode(grey, icc_profile=icc_profile("Adobe RGB")), VIEWER)
    np.testing.assert_array_equal(found.image, grey.convert("RGB"))
    assert found.notes == (BAD_PROFILE,)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_composited(mode):
    from multigrain_jax.data.pixels import Depth, viewer_rgb

    rng = np.random.default_rng(0)
    straight = Image.fromarray(rng.integers(0, 256, (9, 7, 4), np.uint8))
    via = {"PA": "PA", "LA": "LA", "La": "LA"}.get(mode, "RGBA")
    image = (
        straight.convert(via) if via != "PA" else straight.convert("LA").convert("PA")
    )
    image = image if mode == via else image.convert(mode)
    back = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGBA")
    values = np.asarray(back, np.float64)
    alpha = values[..., 3:] / 255
    expected = alpha * values[..., :3] + (1 - alpha) * np.array(BLUE)
    notes = []
    found = viewer_rgb(
        image, Depth(None, False), background=BLUE, by_maximum=False, notes=notes
    )
    assert np.abs(np.asarray(found, np.float64) - expected).max() <= 1
    assert notes == []


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_transparent_colour_shows_the_background(mode):
    values = np.tile(np.array([0, 255], np.uint8), (6, 4))
    image = Image.fromarray(values).convert(mode)
    transparent = {"RGB": (0, 0, 0), "P": image.getpixel((0, 0))}.get(mode, 0)
    found = array(encode(image, transparency=transparent), ON_BLUE)
    assert found[0, 0].tolist() == list(BLUE)
    assert found[0, 1].tolist() == [255, 255, 255]


def test_a_palette_may_have_opacities():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = array(encode(image, transparency=bytes([0, 128, 255])), ON_BLUE)
    half = np.array([0, 255, 0]) * 128 / 255 + np.array(BLUE) * 127 / 255
    assert np.abs(found[0] - [BLUE, half, (0, 0, 255)]).max() <= 1


def test_inverted_cmyk_of_jpegs_keeps_its_colours():
    photo = noise_photo(0, (12, 9), brightest=256).resize((96, 72))
    data = encode(photo.convert("CMYK"), "JPEG", quality=98)
    assert np.abs(array(data) - np.asarray(photo, np.float64)).mean() < 3


def test_ycck_is_cmyk():
    photo = noise_photo(0, (12, 9), brightest=256).resize((96, 72))
    data = encode(photo.convert("CMYK"), "JPEG", quality=98)
    # The colour transform of Adobe's marker: 0 is CMYK, 2 YCCK.
    place = data.index(b"Adobe") + 11
    assert data[place] in (0, 2)
    other = bytes([2 - data[place]])
    changed = data[:place] + other + data[place + 1 :]
    difference = np.abs(array(changed) - np.asarray(photo, np.float64)).mean()
    assert difference > 20, "the marker is not looked at"


def test_significant_bits_of_a_png_are_its_depth():
    values = np.linspace(0, 4095, 12, dtype=np.uint16).reshape(3, 4)
    data = encode(Image.fromarray(values))
    header, body, end = png_chunks(io.BytesIO(data), (b"IHDR", b"IDAT", b"IEND"))
    chunks = [header, body, end]
    marked = PNG_START + png_chunk(*chunks[0][:2]) + png_chunk(b"sBIT", b"\x0c")
    marked += b"".join(png_chunk(*chunk[:2]) for chunk in chunks[1:])
    found = decode_noted(marked, VIEWER)
    np.testing.assert_array_equal(
        np.asarray(found.image)[..., 0], np.round(values / 4095 * 255).astype(np.uint8)
    )
    assert found.notes == ()
    # As the format wants it, the bits stand above: then 16 bits are the range.
    whole = encode(Image.fromarray(values * 16))
    body = list(png_chunks(io.BytesIO(whole), (b"IDAT", b"IEND")))
    marked = PNG_START + png_chunk(*chunks[0][:2]) + png_chunk(b"sBIT", b"\x0c")
    marked += b"".join(png_chunk(*chunk[:2]) for chunk in body)
    assert decode(marked, VIEWER).getextrema()[0] == (0, 255)


def test_the_largest_value_of_a_tiff_is_its_depth():
    values = np.linspace(0, 4095, 12, dtype=np.uint16).reshape(3, 4)
    plain = decode_noted(encode(Image.fromarray(values), "TIFF"), VIEWER)
    assert len(plain.notes) == 1 and "sixteenth" in plain.notes[0]
    told = decode_noted(
        encode(Image.fromarray(values), "TIFF", tiffinfo={281: 4095}), VIEWER
    )
    assert told.image.getextrema()[0] == (0, 255) and told.notes == ()


def png_of_rgb16(values):
    """A PNG of three channels of 16 bits, which Pillow cannot write."""
    import zlib

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        PNG_START
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def test_colours_of_twelve_bits_in_sixteen_are_noted_and_brightened_on_request():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4096, (6, 5, 3))
    data = png_of_rgb16(values)
    found = decode_noted(data, VIEWER)
    assert len(found.notes) == 1 and "sixteenth" in found.notes[0]
    bright = decode_noted(data, MAXIMUM)
    assert bright.notes == ()
    expected = values / values.max() * 255
    # Pillow gives the upper eight bits, of which four are used.
    assert np.abs(np.asarray(bright.image, np.float64) - expected).max() <= 18
    assert decode_noted(png_of_rgb16(values * 16), VIEWER).notes == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 257.0, 65535.0]], np.float32), [0, 1, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 255, 255]),
        (np.array([[-5, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 0, 2**31 - 1]], np.int32), [0, 0, 128]),
    ],
)
def test_thirty_two_bits_have_the_range_that_their_values_show(values, expected):
    found = array(encode(Image.fromarray(values), "TIFF"))
    assert np.abs(found[0, :, 0] - expected).max() <= 1


def test_the_image_given_is_not_changed():
    from multigrain_jax.data.decoding import rgb_of_opened

    photo = noise_photo(0)
    assert rgb_of_opened(photo, VIEWER) is photo
    transparent = photo.convert("RGBA")
    before = transparent.tobytes()
    rgb_of_opened(transparent, VIEWER)
    assert (transparent.mode, transparent.tobytes()) == ("RGBA", before)


def test_every_mode_becomes_rgb():
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    files = {
        "grey": encode(rgb.convert("L")),
        "palette": encode(rgb.convert("P")),
        "transparent palette": encode(rgb.convert("P"), transparency=0),
        "grey and alpha": encode(rgb.convert("LA")),
        "alpha": encode(rgb.convert("RGBA")),
        "one bit": encode(rgb.convert("1")),
        "cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "webp": encode(rgb, "WEBP"),
        "one pixel": encode(rgb.crop((0, 0, 1, 1))),
    }
    for decoding in (PLAIN, VIEWER):
        for name, data in files.items():
            image = decode(data, decoding)
            assert image.mode == "RGB", name
            assert image.size == ((1, 1) if name == "one pixel" else (7, 9))


@pytest.mark.parametrize("decoding", [VIEWER, PLAIN], ids=lambda d: d.pixels)
def test_sixteen_bits_are_scaled_and_not_clipped(decoding):
    values = np.linspace(0, 65535, 12, dtype=np.uint16).reshape(3, 4)
    image = decode(encode(Image.fromarray(values)), decoding)
    np.testing.assert_array_equal(
        np.asarray(image)[..., 0], np.round(values / 257).astype(np.uint8)
    )


@pytest.mark.parametrize("decoding", [VIEWER, PLAIN], ids=lambda d: d.pixels)
def test_a_dark_sixteen_bit_image_stays_dark(decoding):
    values = np.full((3, 4), 200, np.uint16)
    image = decode(encode(Image.fromarray(values)), decoding)
    assert np.asarray(image).max() == 1
