"""Files that are made to break a reader: bombs, lists, links, names, noise."""

import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image

from multigrain_jax.data.crops import resized_size
from multigrain_jax.data.decoding import (
    PLAIN,
    VIEWER,
    UndecodableImageError,
    decode,
    encoded_size,
)
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.folder import ImageFile, index_folder, read_list_file
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve, scan
from multigrain_jax.errors import InputError

SIEVE = Sieve(DEFAULT_EXCLUDE, "refuse")


def png_of_size(width, height):
    """A PNG of some hundred bytes whose header asks for so many pixels."""

    def chunk(kind, data):
        whole = kind + data
        return (
            struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [12_000, 15_000, 60_000])
def test_image_bombs_are_unreadable_images(side):
    """Over the limit, over twice Pillow's own limit, and far over both."""
    bomb = png_of_size(side, side)
    with pytest.raises(UndecodableImageError, match="limit"):
        decode(bomb, VIEWER)
    with pytest.raises(UndecodableImageError, match="limit"):
        encoded_size(io.BytesIO(bomb), VIEWER)


def test_the_largest_allowed_image_is_read():
    decoding = dataclasses.replace(VIEWER, max_megapixels=40 * 30 / 1e6)
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    assert decode(file.getvalue(), decoding).size == (40, 30)


def test_postscript_is_not_run():
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "EPS")
    with pytest.raises(UndecodableImageError, match="PostScript"):
        decode(file.getvalue(), VIEWER)


BAD_LISTS = {
    "outside": (b"../secret.jpg\n", "leads outside"),
    "absolute": (b"/etc/secret.jpg\n", "leads outside"),
    "inside and out": (b"a/../../secret.jpg\n", "leads outside"),
    "binary": (bytes(range(256)) * 10, "UTF-8"),
    "zeros": (bytes(1000), "line 1 is no path"),
    "null byte": (b"a/1.jpg\nb/\x002.jpg\n", "line 2 is no path"),
    "one endless line": (b"a" * 1_000_000, "line 1 is no path"),
    "empty": (b"\n \n", "no paths"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_list_files_are_refused(tmp_path, name):
    content, message = BAD_LISTS[name]
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_list_file(
            tmp_path / "list.txt", root=tmp_path, sieve=SIEVE, instances=None
        )


def test_a_huge_list_file_is_refused_unread(tmp_path):
    with (tmp_path / "list.txt").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    with pytest.raises(InputError, match="1099511627776 bytes"):
        read_list_file(
            tmp_path / "list.txt", root=tmp_path, sieve=SIEVE, instances=None
        )


def test_a_list_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(InputError, match="no such file"):
        read_list_file(
            tmp_path / "list.txt", root=tmp_path, sieve=SIEVE, instances=None
        )


def test_links_that_lead_in_circles_are_followed_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "itself").symlink_to(tmp_path / "a" / "itself")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    files = scan(tmp_path, SIEVE).files
    assert files == ["a/1.jpg", "a/to_b/1.jpg", "b/1.jpg", "b/to_a/1.jpg"]


def test_links_that_double_the_ways_without_an_end_are_refused(tmp_path):
    for number in range(40):
        (tmp_path / str(number)).mkdir()
        for name in ("a", "b"):
            (tmp_path / str(number) / name).symlink_to(tmp_path / str(number + 1))
    with pytest.raises(InputError, match="in more than 1000 ways"):
        scan(tmp_path / "0", SIEVE)


HOSTILE_NAMES = [
    b"line\nbreak.jpg",
    b"\x1b[2Jescape.jpg",
    b"no utf-8 \xff.jpg",
    b'{"json": 1}.jpg',
    b"=cmd(),.jpg",
    "right\u202eleft.jpg".encode(),
]


def test_any_file_name_can_be_listed_and_skipped(tmp_path, capsys):
    folder = os.fsencode(tmp_path / "train" / "cat")
    os.makedirs(folder)
    for name in HOSTILE_NAMES:
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"no image")
    files, class_names = index_folder(
        tmp_path, split="train", sieve=SIEVE, instances=None
    )
    assert len(files) == len(HOSTILE_NAMES) and class_names == ["cat"]
    source = FileSource(
        files,
        class_names=class_names,
        decoding=VIEWER,
        local_cache_dir=None,
    )
    skips = SkipLog(source, workdir=tmp_path, max_fraction=1.0)
    skips.record(np.arange(len(files)))
    text = (tmp_path / "skipped.txt").read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(HOSTILE_NAMES)
    assert all(line.isprintable() for line in text.splitlines())
    assert "\x1b" not in capsys.readouterr().out
    # A resumed run knows them again.
    SkipLog(source, workdir=tmp_path, max_fraction=1.0).record(np.arange(len(files)))
    assert (tmp_path / "skipped.txt").read_text(encoding="utf-8") == text


def mutate(data, rng):
    """The bytes with some changed, cut out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        start = int(rng.integers(0, max(1, len(data))))
        length = int(rng.integers(1, 30))
        what = rng.integers(0, 4)
        if what == 0:
            data[start : start + length] = rng.bytes(length)
        elif what == 1:
            del data[start : start + length]
        elif what == 2:
            data[start:start] = data[start : start + length]
        elif len(data) > 100:
            del data[start + 50 :]
    return bytes(data)


KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_an_image_or_unreadable(kind):
    whole = encode(noise_photo(0, (40, 30), brightest=256), kind)
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(400):
        data = mutate(whole, rng)
        for decoding in (PLAIN, VIEWER):
            try:
                image = decode(data, decoding)
            except UndecodableImageError:
                outcomes.add("unreadable")
            else:
                outcomes.add("image")
                assert image.mode == "RGB" and min(image.size) > 0
                # The plan of the batches has been made for this size.
                assert encoded_size(io.BytesIO(data), decoding) == image.size
        try:
            size = encoded_size(io.BytesIO(data), VIEWER)
            resized = resized_size(*size, test_size=64, mode="rect", smallest_side=1)
            assert min(resized) > 0
        except UndecodableImageError:
            pass
    assert outcomes == {"unreadable", "image"}


def test_noisy_lists_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(2)
    whole = "\n".join(f"class{n % 3}/photo {n}.jpg\tcat" for n in range(20)).encode()
    outcomes = set()
    for _ in range(500):
        (tmp_path / "list.txt").write_bytes(mutate(whole, rng))
        try:
            files, names = read_list_file(
                tmp_path / "list.txt", root=tmp_path, sieve=SIEVE, instances=None
            )
        except InputError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert all(isinstance(file, ImageFile) for file in files)
        assert all(-1 <= file.label < len(names) for file in files)
        assert all(os.path.abspath(f.path).startswith(f"{tmp_path}/") for f in files)
    assert outcomes == {"refused", "read"}
