"""The orientation of a photo, whatever the rest of its EXIF data is."""

import io
import struct

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image, PngImagePlugin

from multigrain_jax.data.image_file import quiet_pillow
from multigrain_jax.data.mending import PNG_START, png_chunk, png_chunks
from multigrain_jax.data.orientation import (
    EXIF_HEADER,
    TAG,
    exif_orientation,
    orientation_of,
    turn_upright,
)

BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5


def exif_data(kind, value, *, order=">", count=1, offset=8, tag=TAG, before=()):
    """EXIF data of one folder, with an entry of that type and field of four bytes."""
    entries = [*before, struct.pack(f"{order}HHI", tag, kind, count) + value]
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", offset)
    return head + struct.pack(f"{order}H", len(entries)) + b"".join(entries)


@pytest.mark.parametrize(
    ("exif", "found"),
    [
        (exif_data(SHORT, b"\0\6\0\0"), 6),
        (exif_data(SHORT, b"\6\0\0\0", order="<"), 6),
        (EXIF_HEADER + exif_data(SHORT, b"\0\3\0\0"), 3),
        (exif_data(BYTE, b"\6\0\0\0"), 6),
        (exif_data(LONG, b"\0\0\0\6"), 6),
        (exif_data(ASCII, b"6\0\0\0", count=2), 6),
        (exif_data(ASCII, b"up\0\0", count=2), None),
        (exif_data(RATIONAL, b"\0\0\0\6"), None),
        (exif_data(SHORT, b"\0\6\0\0", count=0), 6),
        (exif_data(SHORT, b"\0\6\0\3", count=2), 6),
        (exif_data(SHORT, b"\0\0\0\x16", count=3) + b"\0\6\0\0\0\0", 6),
        (exif_data(SHORT, b"\xff\0\0\0", count=3), None),
        (exif_data(SHORT, b"\0\6\0\0", offset=9000), None),
        (exif_data(SHORT, b"\0\6\0\0", tag=0x0110), None),
        (exif_data(SHORT, b"\0\6\0\0", before=[bytes(12)]), 6),
        (exif_data(SHORT, b"\0\6\0\0")[:-6], None),
        (exif_data(SHORT, b"\0\6\0\0")[:9], None),
        (b"", None),
        (b"MM", None),
        (b"rubbish", None),
        (bytes(300), None),
    ],
)
def test_exif_data_of_any_kind(exif, found):
    assert exif_orientation(exif) == found


def test_noise_as_exif_data_is_no_error():
    rng = np.random.default_rng(0)
    whole = exif_data(SHORT, b"\0\6\0\0")
    for _ in range(500):
        noise = bytearray(whole)
        for place in rng.integers(4, len(noise), 3):
            noise[place] = rng.integers(0, 256)
        orientation = exif_orientation(bytes(noise))
        assert orientation is None or 0 <= orientation < 1 << 32


def opened(data):
    with quiet_pillow():  # which warns that these few bytes end early
        return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("number", "found"), [(1, 1), (8, 8), (0, 1), (9, 1), (65535, 1)]
)
def test_numbers_that_are_no_orientation_leave_a_photo_as_it_lies(number, found):
    value = struct.pack(">HH", number, 0)
    data = encode(noise_photo(0), "JPEG", exif=EXIF_HEADER + exif_data(SHORT, value))
    with opened(data) as image:
        assert orientation_of(image) == found


@pytest.mark.parametrize("text", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff"])
def test_xmp_counts_where_exif_does_not(text):
    with opened(encode(noise_photo(0), "JPEG", xmp=text.encode())) as image:
        assert orientation_of(image) == 6
    exif = EXIF_HEADER + exif_data(SHORT, b"\0\3\0\0")
    with opened(encode(noise_photo(0), "JPEG", xmp=text.encode(), exif=exif)) as image:
        assert orientation_of(image) == 3


def test_a_png_may_have_its_orientation_behind_its_pixels():
    chunks = list(png_chunks(io.BytesIO(encode(noise_photo(0))), (b"IHDR", b"IDAT")))
    late = PNG_START + b"".join(png_chunk(chunk.kind, chunk.data) for chunk in chunks)
    late += png_chunk(b"eXIf", exif_data(SHORT, b"\0\6\0\0")) + png_chunk(b"IEND", b"")
    file = io.BytesIO(late)
    with Image.open(file) as image:
        place = file.tell()
        assert orientation_of(image, file) == 6 and file.tell() == place
        image.load()
        assert orientation_of(image) == 6


def test_a_png_may_have_its_orientation_as_text():
    info = PngImagePlugin.PngInfo()
    exif = EXIF_HEADER + exif_data(SHORT, b"\0\6\0\0")
    info.add_text("Raw profile type exif", f"\nexif\n {len(exif)}\n{exif.hex()}\n")
    with opened(encode(noise_photo(0), pnginfo=info)) as image:
        assert orientation_of(image) == 6
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n 4\nno hex\n")
    with opened(encode(noise_photo(0), pnginfo=info)) as image:
        assert orientation_of(image) == 1


def test_no_turn_gives_the_image_itself():
    photo = noise_photo(0)
    assert turn_upright(photo, 1) is photo
    assert turn_upright(photo, 6).size == photo.size[::-1]
