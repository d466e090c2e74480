"""Galleries: photos become thumbnails, verdicts words, names escaped text."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from helpers.sources import open_photos
from PIL import Image

from multigrain_jax.pages import gallery
from multigrain_jax.pages.gallery import (
    THUMBNAIL_SIDE,
    GalleryItem,
    GalleryRow,
    LazyRows,
    file_address,
    has_files,
    load_photo,
    photos_of,
    render_row,
    thumbnail_uri,
)


def picture(width=40, height=30, mode="RGB"):
    shape = (height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    return Image.fromarray(pixels).convert(mode)


def texts(html):
    return [text.strip() for text in re.findall(r">([^<]+)<", html) if text.strip()]


def test_a_gallery_marks_right_and_wrong_by_word_and_symbol():
    row = GalleryRow(
        GalleryItem(picture, "ant", None, "query"),
        [
            GalleryItem(picture, "ant", 0.98765, "right"),
            GalleryItem(picture, "bee", -0.25, "wrong"),
            GalleryItem(lambda: None, "lost", 0.1, "ignored", "/a/lost & gone.jpg"),
            GalleryItem(picture, "any", 0.0, "found", "/a/any.jpg"),
        ],
        average_precision=0.5,
    )
    body = render_row(row)
    assert texts(body) == [
        *("average precision", "0.500"),
        *("ant", "query"),
        *("1", "ant", "similarity 0.988", "✓ right"),
        *("2", "bee", "similarity -0.250", "✗ wrong"),
        *("not readable", "lost", "lost &amp; gone.jpg"),
        *("similarity 0.100", "– ignored"),
        *("3", "any", "any.jpg", "similarity 0.000"),
    ]
    assert re.findall('alt="([^"]+)"', body) == [
        *("ant (query)", "ant (right)", "bee (wrong)", "any (found)")
    ]
    assert 'data-average-precision="0.5"' in body


def test_a_long_path_may_be_broken_behind_its_folders():
    item = GalleryItem(picture, "<i>/photo.jpg", None, "query")
    html = render_row(GalleryRow(item, []))
    assert '<span class="title">&lt;i&gt;/<wbr>photo.jpg</span>' in html
    assert 'alt="&lt;i&gt;/photo.jpg (query)"' in html


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/a/b/w/1.jpg", "./1.jpg"),
        ("/a/b/photos/é#1?.jpg", "./../photos/%C3%A9%231%3F.jpg"),
        ("/a/x:y/1.jpg", "./../../x%3Ay/1.jpg"),
        ("/z/1.jpg", "file:///z/1.jpg"),
        ("/z/\udcff.jpg", "file:///z/%FF.jpg"),
    ],
)
def test_a_link_to_a_near_file_is_relative(path, address):
    assert file_address(path, Path("/a/b/w")) == address
    assert file_address(path, None).startswith("file:///")


def test_a_photo_has_its_path_to_copy_and_a_link(tmp_path):
    path = f'{tmp_path}/<i>"\udcff.jpg'
    item = GalleryItem(picture, "a photo", 0.5, "found", path, "a <note>")
    row = GalleryRow(item, [item._replace(load=lambda: None)], note="said & done")
    body = render_row(row, folder=tmp_path)
    name = "&lt;i&gt;&quot;\\xff.jpg"
    assert texts(body) == [
        *("said &amp; done", "a photo", name, "similarity 0.500", "a &lt;note&gt;"),
        *("1", "not readable", "a photo", name, "similarity 0.500", "a &lt;note&gt;"),
    ]
    written = f"{tmp_path}/&lt;i&gt;&quot;\\xff.jpg"
    assert re.findall('data-path="([^"]*)"', body) == [written] * 2
    # What is not there cannot be opened; where a file is none, its name may be copied.
    assert re.findall('href="([^"]*)"', body) == ["./%3Ci%3E%22%FF.jpg"]
    named = render_row(GalleryRow(item._replace(path="set [3]"), []), folder=tmp_path)
    assert 'data-path="set [3]"' in named and "href" not in named
    assert 'data-similarity="0.5"' in body


def test_without_an_average_precision_there_is_none_on_the_page():
    html = render_row(GalleryRow(GalleryItem(picture, "ant", None, "query"), []))
    assert "average" not in html


def decode_thumbnail(uri):
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    data = base64.b64decode(uri.removeprefix(prefix), validate=True)
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 400), (400, 200)), ((200, 800), (100, 400)), ((33, 20), (33, 20))],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_thumbnails_are_small_jpegs(size, expected, mode):
    image = picture(size[0], size[1], mode)
    small = decode_thumbnail(thumbnail_uri(image))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", expected)
    assert max(expected) <= THUMBNAIL_SIDE
    assert (image.size, image.mode) == (size, mode)


def test_a_row_may_leave_its_photos_to_the_browser():
    def load():
        raise AssertionError("it is read")

    def item(path):
        return GalleryItem(load, "a photo", 0.5, "found", path)

    row = GalleryRow(item("/w/é.JPG"), [item("/w/b.heic"), item("set [3]"), item(None)])
    body = render_row(row, folder=Path("/w"), embed=False)
    assert re.findall('<img src="([^"]*)"', body) == ["./%C3%A9.JPG"]
    assert 'loading="lazy"' in body
    assert re.findall('href="([^"]*)"', body) == ["./%C3%A9.JPG", "./b.heic"]
    assert body.count(">not in this page<") == 3
    assert has_files(row)
    assert not has_files(GalleryRow(item("/w/b.heic"), [item("set.jpg [3]")]))


def test_a_row_says_that_its_query_could_not_be_read():
    row = GalleryRow(GalleryItem(lambda: None, "a", None, "query"), [], 0.0)
    assert "data-unreadable" not in render_row(row)
    assert "data-unreadable" in render_row(row._replace(is_readable=False))


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_photos_are_loaded_upright(tmp_path, format_):
    path = tmp_path / "photo"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1600, 800).save(path, format=format_, exif=exif)
    photo = load_photo(path)
    assert photo is not None
    assert photo.width * 2 == photo.height
    assert photo.height >= THUMBNAIL_SIDE
    if format_ == "JPEG":
        assert photo.height < 1600


@pytest.mark.parametrize("data", [b"", b"no photo", None])
def test_what_is_no_photo_is_none(tmp_path, data):
    path = tmp_path / "photo.jpg"
    if data is not None:
        path.write_bytes(data)
    assert load_photo(path) is None


def test_lazy_rows_are_made_when_they_are_asked_for():
    made = []

    def make_row(number):
        made.append(number)
        return GalleryRow(GalleryItem(picture, f"row {number}", None, "query"), [])

    rows = LazyRows(5, make_row)
    some = rows[1::2]
    assert (len(rows), len(some), len(some[::-1])) == (5, 2, 2)
    assert made == []
    assert [row.query.title for row in some[::-1]] == ["row 3", "row 1"]
    assert (rows[-1].query.title, some[-1].query.title) == ("row 4", "row 3")
    assert made == [3, 1, 4, 3]
    assert [row.query.title for row in rows] == [f"row {n}" for n in range(5)]
    for number in (5, -6):
        with pytest.raises(IndexError):
            rows[number]
    with pytest.raises(IndexError):
        some[2]


def test_a_photo_that_is_shown_again_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "1.png"
    path.write_bytes(encode(noise_photo(0, (700, 500))))
    decoded = []
    real = gallery.decode

    def counted(data, decoding, **options):
        decoded.append(options)
        return real(data, decoding, **options)

    monkeypatch.setattr(gallery, "decode", counted)
    first = load_photo(path)
    assert first is not None and first.size == (400, 286)
    assert load_photo(path) is first and len(decoded) == 1
    # Another photo under the name is another photo.
    path.write_bytes(encode(noise_photo(1, (40, 30))))
    changed = load_photo(path)
    assert changed is not None and changed.size == (40, 30)


def test_photos_of_a_source_are_read_once_for_a_page(tmp_path, monkeypatch):
    for name, size in (("1.jpg", (1400, 1000)), ("2.jpg", (40, 30))):
        (tmp_path / name).write_bytes(encode(noise_photo(0, size), "JPEG"))
    (tmp_path / "3.jpg").write_bytes(b"no photo")
    source = open_photos(tmp_path)
    sides = []
    real = gallery.read_noted

    def counted(source, index, *, side):
        found = real(source, index, side=side)
        sides.append(found.image.size)
        return found

    monkeypatch.setattr(gallery, "read_noted", counted)
    load = photos_of(source)
    sizes = [image and image.size for image in map(load, (0, 1, 0, 1, 2))]
    assert sizes == [(400, 286), (40, 30), (400, 286), (40, 30), None]
    assert sides == [(700, 500), (40, 30)]
