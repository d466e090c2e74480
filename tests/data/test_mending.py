"""Files that lack something, and whether all of their pixels are there."""

import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image, ImageFilter

from multigrain_jax.data.mending import (
    END_MISSING,
    PNG_START,
    mend,
    png_chunk,
    png_chunks,
)

LIMIT = 1 << 24
PHOTO = noise_photo(0, (64, 48), brightest=256).filter(ImageFilter.GaussianBlur(3))
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "restarts in rows": {"restart_marker_rows": 1},
    "no subsampling": {"subsampling": 0},
}


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_is_mended_and_one_without_rows_is_not(kind):
    data = encode(PHOTO, "JPEG", quality=90, **JPEGS[kind])
    whole = pixels(data)
    for missing in (1, 2):
        mended = mend(data[:-missing], max_bytes=LIMIT)
        assert mended is not None and mended.note == END_MISSING
        np.testing.assert_array_equal(pixels(mended.data), whole)
    lost = 0
    for missing in range(3, len(data) // 2):
        cut = data[:-missing]
        mended = mend(cut, max_bytes=LIMIT)
        if mended is not None:
            # Padding and the marker of a last, empty interval hold no pixel; a whole
            # scan of a progressive file is a finer drawing of rows that are there.
            assert kind == "progressive" or np.array_equal(pixels(mended.data), whole)
        lost += mended is None
    assert lost > len(data) // 2 - 3 - 60


MEMORY = """
import re, resource, sys
from pathlib import Path
from multigrain_jax.data.decoding import VIEWER, decode_noted
def most_bytes():
    # Not every kernel tells it there; the other one counts the parent's peak too.
    found = re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return 1024 * (int(found[1]) if found else usage.ru_maxrss)
for data in (Path(path).read_bytes() for path in sys.argv[1:]):
    before = most_bytes()
    image, notes = decode_noted(data, VIEWER)
print((most_bytes() - before) / (image.width * image.height), *notes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' units differ")
def test_a_jpeg_without_its_end_takes_the_memory_of_one_picture(tmp_path):
    paths = [tmp_path / name for name in ("first.jpg", "large.jpg")]
    gradient = Image.linear_gradient("L").convert("RGB")
    for path, size in zip(paths, [(60, 40), (6000, 4000)], strict=True):
        path.write_bytes(encode(gradient.resize(size), "JPEG")[:-2])
    # A process of its own: the peak of this one is that of its largest test.
    command = [sys.executable, "-c", MEMORY, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, note = done.stdout.strip().split(" ", 1)
    assert note == END_MISSING
    assert float(taken) < 6, taken  # bytes a pixel, of which Pillow's picture has 4


def test_a_sound_jpeg_with_another_fault_is_not_mended():
    assert mend(encode(PHOTO, "JPEG"), max_bytes=LIMIT) is None


def chunks_of(data):
    kinds = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    return [(chunk.kind, chunk.data) for chunk in png_chunks(io.BytesIO(data), kinds)]


PNGS = {
    "RGB": encode(PHOTO),
    "palette": encode(PHOTO.quantize(13)),
    "16 bits": encode(
        Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    ),
    "one bit": encode(PHOTO.convert("1")),
    "alpha": encode(PHOTO.convert("RGBA")),
}


@pytest.mark.parametrize("name", PNGS)
def test_a_png_is_mended_where_its_rows_are_there(name):
    data = PNGS[name]
    whole = pixels(data)
    # The end, and of the pixels' chunk its checksum and that of the packing.
    for missing in (1, 4, 12, 13, 16, 20):
        mended = mend(data[:-missing], max_bytes=LIMIT)
        assert mended is not None and mended.note == END_MISSING
        np.testing.assert_array_equal(pixels(mended.data), whole)
    for missing in (40, len(data) // 2):
        assert mend(data[:-missing], max_bytes=LIMIT) is None
    assert mend(data[:20], max_bytes=LIMIT) is None
    assert mend(data, max_bytes=100) is None


def test_a_png_with_wrong_pixels_is_not_mended():
    data = bytearray(PNGS["RGB"])
    data[len(data) // 2] ^= 1
    assert mend(bytes(data), max_bytes=LIMIT) is None


def test_faults_beside_the_pixels_of_a_png_do_not_matter():
    (header, *rest) = chunks_of(PNGS["RGB"])
    text = bytearray(png_chunk(b"tEXt", b"a\0bc"))
    text[-1] ^= 1
    data = PNG_START + png_chunk(*header) + text + b"".join(png_chunk(*c) for c in rest)
    mended = mend(data, max_bytes=LIMIT)
    assert mended is not None and "beside its pixels" in mended.note
    np.testing.assert_array_equal(pixels(mended.data), pixels(PNGS["RGB"]))


def test_interlaced_rows_are_counted():
    # Two by two pixels of grey, in the three passes that have any.
    header = bytes([0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 1])
    rows = b"\0\x10" + b"\0\x20" + b"\0\x30\x40"
    data = PNG_START + png_chunk(b"IHDR", header)
    data += png_chunk(b"IDAT", zlib.compress(rows))
    mended = mend(data, max_bytes=LIMIT)
    assert mended is not None
    assert pixels(mended.data).tolist() == [[0x10, 0x20], [0x30, 0x40]]
    short = PNG_START + png_chunk(b"IHDR", header)
    short += png_chunk(b"IDAT", zlib.compress(rows[:-1]))
    assert mend(short, max_bytes=LIMIT) is None


def test_other_formats_are_left_alone():
    for kind in ("GIF", "BMP", "WEBP"):
        assert mend(encode(PHOTO, kind)[:-9], max_bytes=LIMIT) is None
