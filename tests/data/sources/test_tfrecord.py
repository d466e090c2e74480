"""TFRecord data sets as a source, without TensorFlow."""

import contextlib

import numpy as np
import pytest
from helpers.sources import open_photos
from helpers.tfrecord import (
    CLASSES,
    COUNT,
    field,
    picture,
    varint,
    write_tfrecords,
)

from multigrain_jax.data import cache
from multigrain_jax.data.sources.tfrecord import (
    TfrecordSource,
    _places,
    is_tfrecord,
    parse_example,
)
from multigrain_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return write_tfrecords(tmp_path)


def test_the_source_needs_no_tensorflow(folder):
    source = open_photos(folder, "train", source="tfds")
    assert isinstance(source, TfrecordSource)
    assert len(source) == COUNT and source.class_names == CLASSES
    np.testing.assert_array_equal(source.labels, np.arange(COUNT) % 3)
    assert [source.read(n) for n in range(COUNT)] == [picture(n) for n in range(COUNT)]
    assert source.describe(5).endswith("in-train.tfrecord-00002-of-00004 record 0")


def test_names_of_classes_may_begin_with_a_byte_order_mark(folder):
    names = folder / "label.labels.txt"
    names.write_text(names.read_text(), encoding="utf-8-sig")
    assert open_photos(folder, "train", source="tfds").class_names == CLASSES


def test_an_example_is_parsed_in_both_encodings_of_integers():
    packed = field(3, field(1, varint(300) + varint(7)))
    single = field(3, varint(1 << 3) + varint(300))
    for label in (packed, single):
        entry = field(1, b"label") + field(2, label)
        assert parse_example(field(1, field(1, entry))) == {"label": 300}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "dataset_info.json").unlink(), "prepared by TFDS was expected"),
        (lambda f: (f / "label.labels.txt").unlink(), "expected to list the classes"),
        (
            lambda f: (f / "in-train.tfrecord-00002-of-00004").unlink(),
            "copy the whole data set",
        ),
        (
            lambda f: (f / "in-train.tfrecord-00000-of-00004").write_bytes(b""),
            "5 records were expected, found 0",
        ),
    ],
)
def test_what_is_missing_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        TfrecordSource(folder, "train").read(0)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "7",
        '{"splits": 7}',
        '{"splits": [7]}',
        '{"splits": [{"name": "train"}]}',
        '{"name": "in", "splits": [{"name": "train", "shardLengths": ["x"]}]}',
        '{"splits": [{"name": "train", "shardLengths": ["5"]}]}',
    ],
)
def test_an_info_of_any_content_is_refused_in_one_line(folder, text):
    (folder / "dataset_info.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset_info\.json"):
        TfrecordSource(folder, "train")
    is_tfrecord(folder)


def test_damage_is_an_unreadable_image_or_one_line(folder):
    """Bits flipped, bytes of lengths raised, files cut: no record asks for memory."""
    rng, read, refused = np.random.default_rng(0), 0, 0
    files = sorted(folder.glob("*.tfrecord-*"))
    originals = {file: file.read_bytes() for file in files}
    for number in range(300):
        file = files[int(rng.choice([0, 2, 3]))]
        data = bytearray(originals[file])
        place = int(rng.integers(64 if number % 2 else len(data)))
        kind = number % 3
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place : place + 4] = b"\xff" * 4
        else:
            data = data[:place]
        file.write_bytes(data)
        _places.cache_clear()
        try:
            source = TfrecordSource(folder, "train")
            assert source.labels.min() >= 0 and source.labels.max() < 3
            for index in range(len(source)):
                with contextlib.suppress(OSError):
                    assert isinstance(source.read(index), bytes)
            read += 1
        except InputError as error:
            assert str(folder) in str(error) and str(error).isprintable()
            refused += 1
        file.write_bytes(originals[file])
    assert read > 20 and refused > 100


def test_an_integer_without_an_end_is_refused():
    with pytest.raises(ValueError, match="without an end"):
        parse_example(b"\xff" * 1_000_000)


def test_another_split_or_feature_is_refused(folder):
    with pytest.raises(InputError, match=r"split 'val' was expected, found train"):
        TfrecordSource(folder, "val")
    with pytest.raises(InputError, match=r"\['photo'\] were expected"):
        TfrecordSource(folder, "train", image_key="photo").read(0)


def test_the_labels_of_a_large_set_are_read_once(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "KEPT_FROM", COUNT)
    first = TfrecordSource(folder, "train").labels
    assert "reading the 11 labels" in capsys.readouterr().out
    np.testing.assert_array_equal(TfrecordSource(folder, "train").labels, first)
    assert "reading" not in capsys.readouterr().out
