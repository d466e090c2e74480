"""What a file is and how large, before memory is taken for it."""

import dataclasses
import io
import time
import tracemalloc

import numpy as np
import pytest
from helpers.bombs import BOMBS, PHOTO
from helpers.photos import encode
from PIL import Image

from multigrain_jax.data import image_file
from multigrain_jax.data.decoding import (
    BYTES_PER_PIXEL,
    PLAIN,
    VIEWER,
    UndecodableImageError,
    decode,
    encoded_size,
)
from multigrain_jax.data.image_file import kind_of, quiet_pillow


def small_limit(pixels):
    return dataclasses.replace(VIEWER, max_megapixels=pixels / 1e6)


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("decoding", [VIEWER, PLAIN], ids=lambda d: d.pixels)
def test_bombs_are_refused_before_memory_is_taken(name, decoding):
    import resource

    data = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UndecodableImageError) as error:
        decode(data, decoding)
    assert "limit" in str(error.value), error.value
    with pytest.raises(UndecodableImageError):
        encoded_size(io.BytesIO(data), decoding)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # KiB; one of these pictures has a million


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_the_largest_allowed_photo_is_read_and_a_larger_one_is_not(kind):
    data = encode(PHOTO, kind)
    assert decode(data, small_limit(64 * 48)).size == (64, 48)
    if kind != "JPEG":
        with pytest.raises(UndecodableImageError, match=r"64x48 .* limit of 0\.0030"):
            decode(data, small_limit(64 * 48 - 1))


@pytest.mark.parametrize(
    ("limit", "size"),
    [(3071, (32, 24)), (768, (32, 24)), (700, (16, 12)), (48, (8, 6))],
)
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_too_large_photo_is_decoded_at_a_fraction_of_its_size(kind, limit, size):
    smooth = PHOTO.resize((4, 3)).resize((64, 48))
    data = encode(smooth, kind, **({"num_resolutions": 6} if kind != "JPEG" else {}))
    if kind == "JPEG2000":
        limit = limit * 16 // BYTES_PER_PIXEL  # which its decoder takes
    decoding = small_limit(limit)
    assert encoded_size(io.BytesIO(data), decoding) == size
    found = decode(data, decoding)
    assert found.size == size
    whole = smooth.resize(size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(found, float) - np.asarray(whole, float))
    assert difference.mean() < 8
    with pytest.raises(UndecodableImageError, match="limit"):
        decode(data, small_limit(40))


def test_photos_of_a_hundred_megapixels_need_no_switch(monkeypatch):
    """Pillow's own limit does not matter, nor does it warn."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert decode(encode(PHOTO, kind), VIEWER).size == (64, 48)


def test_crops_of_large_photos_do_not_warn(monkeypatch):
    from multigrain_jax.data.crops import resize_crop
    from multigrain_jax.data.simd_resize import simd_resize_crop

    box = (3, 2, 60, 40)
    expected = [np.asarray(resize_crop(PHOTO, box, 20))]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    np.testing.assert_array_equal(resize_crop(PHOTO, box, 20), expected[0])
    pytest.importorskip("cykooz_resizer")
    difference = np.asarray(simd_resize_crop(PHOTO, box, 20), int) - expected[0]
    assert np.abs(difference).max() <= 2


def with_head(head):
    data = encode(PHOTO, "JPEG")
    return data[:2] + head + data[2:]


EXIF_PART = b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)
XMP_PART = b"\xff\xe1\xff\xffhttp" + bytes(65529)


@pytest.mark.parametrize(
    ("head", "is_read"),
    [
        (EXIF_PART * 60, True),
        (EXIF_PART * 70, False),
        (XMP_PART * 300, True),
        (XMP_PART * 1100, False),
        (XMP_PART + bytes(3000), True),
        (XMP_PART + bytes(10_000_000), False),
        (b"\xff" * 3000, True),
        (b"\xff" * 10_000_000, False),
    ],
)
def test_what_is_before_the_pixels_of_a_jpeg_is_bounded(head, is_read):
    """Each of the refused ones would take seconds to minutes."""
    started = time.process_time()
    if is_read:
        assert decode(with_head(head), VIEWER).size == (64, 48)
    else:
        with pytest.raises(UndecodableImageError, match="before its pixels"):
            decode(with_head(head), VIEWER)
        with pytest.raises(UndecodableImageError, match="before its pixels"):
            encoded_size(io.BytesIO(with_head(head)), VIEWER)
    assert time.process_time() - started < 5


def test_memory_follows_the_limit_for_sixteen_bits():
    values = np.random.default_rng(0).integers(0, 65536, (1000, 1000), np.uint16)
    data = encode(Image.fromarray(values))
    tracemalloc.start()
    try:
        decode(data, VIEWER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * values.size + (24 << 20)  # and blocks of a million numbers


KINDS = {
    b"": "an empty file",
    b"hello": "not an image file",
    b"\0\0\0\x18ftypheic\0\0\0\0": "HEIC",
    b"\0\0\0\x18ftypmif1\0\0\0\0": "HEIC",
    b"\0\0\0\x18ftypcrx \0\0\0\0": "raw photo",
    b"\0\0\0\x18ftypisom\0\0\0\0": "video",
    b"\xff\x0a rest": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"%!PS-Adobe": "PostScript",
    b"%PDF-1.7": "PDF",
    b"8BPS\0\1": "Photoshop",
    b"<svg xmlns='x'/>": "SVG",
    b'<?xml version="1.0"?>\n<svg/>': "SVG",
    b"<!DOCTYPE html><html>": "web page",
    b"\n <html>Not found": "web page",
    b"PK\x03\x04": "archive",
    b"\0\0\1\0\1\0": "icon",
    b"\xff\xd8\xff\xe0rest": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
}


@pytest.mark.parametrize("data", KINDS)
def test_files_of_other_kinds_are_named(data):
    assert KINDS[data] in kind_of(data)
    with pytest.raises(UndecodableImageError):
        decode(data, VIEWER)


def test_a_photo_of_an_extra_that_is_missing_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(image_file, "_has_reader", lambda name: False)
    monkeypatch.setattr(image_file.Image, "OPEN", dict(Image.OPEN))
    image_file.Image.OPEN.pop("HEIF", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100)
    with pytest.raises(UndecodableImageError, match=r"HEIC.*pip install -e '\.\[heif"):
        decode(heic, VIEWER)
    assert not {".heic", ".heif"} & set(image_file.image_suffixes())


def test_an_extra_is_used_where_it_is_there():
    pytest.importorskip("pillow_heif")
    assert ".heic" in image_file.image_suffixes()
    with quiet_pillow():
        assert image_file._register("HEIF")
    data = encode(PHOTO.resize((128, 96)), "HEIF", quality=95)
    found = decode(data, VIEWER)
    assert found.size == (128, 96)
    assert encoded_size(io.BytesIO(data), VIEWER) == (128, 96)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(PHOTO.resize((128, 96)), "HEIF", quality=95, exif=exif.tobytes())
    assert decode(data, VIEWER).size == encoded_size(io.BytesIO(data), VIEWER)


def test_suffixes_are_those_of_photos():
    suffixes = image_file.image_suffixes()
    for suffix in [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
    ]:
        assert suffix in suffixes
    assert {".avif", ".jp2"} <= set(suffixes)
    assert not {".svg", ".pdf", ".eps", ".txt"} & set(suffixes)
