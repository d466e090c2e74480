"""Photos of a collection are read from files, or from the source they came from."""

import io

import pytest
from PIL import Image

from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.errors import InputError
from multigrain_jax.pages.stored_photos import PhotoReader


def test_a_source_is_opened_once_for_the_first_photo_that_is_no_file(tmp_path):
    file = tmp_path / "photo.png"
    Image.new("RGB", (7, 5)).save(file)
    source, opened = QuickstartSource("val"), []

    def open_source():
        opened.append(source)
        return source

    photos = PhotoReader(open_source, collection="the quick start")
    photo = photos(str(file))
    assert photo is not None
    assert photo.size == (7, 5)
    assert opened == []
    for number in (3, 5):
        photo = photos(source.describe(number))
        assert photo is not None
        with Image.open(io.BytesIO(source.read(number))) as expected:
            assert photo.tobytes() == expected.convert("RGB").tobytes()
    assert photos("no such photo") is None
    assert opened == [source]


def test_where_all_photos_are_files_another_name_is_none(tmp_path):
    photos = PhotoReader(lambda: None, collection="files")
    assert photos(str(tmp_path / "gone.png")) is None


@pytest.mark.parametrize("kind", [InputError, ImportError])
def test_a_source_that_is_gone_is_told_once(kind, capsys):
    def open_source():
        raise kind("it is gone")

    photos = PhotoReader(open_source, collection="workdirs/embed")
    assert photos("a") is photos("b") is None
    said = "the page cannot show the photos of workdirs/embed: it is gone"
    assert capsys.readouterr().out.splitlines() == [said]
