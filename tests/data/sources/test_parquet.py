import json
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.photos import noise_photo, plain_photo
from helpers.shards import write_parquet
from helpers.sources import described, open_photos

from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources import parquet, random_access
from multigrain_jax.errors import InputError

PHOTOS = [plain_photo(20 * number) for number in range(6)]
LABELS = [1, 0, 2, 1, -1, None]
NAMES = ["tench", "goldfish", "shark"]


def large_photos(count):
    """Photos of several of Snappy's blocks, some of which pack well."""
    rng = np.random.default_rng(0)
    photos = [rng.bytes(int(size)) for size in rng.integers(1, 200_000, count)]
    photos[1] = b"ab" * 70_000
    photos[4] = photos[2]  # a dictionary holds it once
    photos[5] = photos[0] + b"x" * 70_000 + photos[0]
    return photos


def open_rows(root, split=None, **options):
    return open_photos(root, split, source="parquet", **options)


def content(source):
    return [source.read(i) for i in range(len(source))]


@pytest.mark.parametrize("binary", [False, True])
def test_rows_are_photos_with_labels_in_the_order_of_the_files(tmp_path, binary):
    options = {"class_names": NAMES, "binary": binary}
    data = tmp_path / "data"
    second = data / "train-00001-of-00002.parquet"
    write_parquet(second, PHOTOS[4:], LABELS[4:], **options)
    first = data / "train-00000-of-00002.parquet"
    write_parquet(first, PHOTOS[:4], LABELS[:4], row_group_size=3, **options)
    write_parquet(data / "validation-0.parquet", PHOTOS[:1], [0], **options)
    source = open_rows(tmp_path, "train")
    assert content(source) == PHOTOS
    assert source.class_names == NAMES
    # As Hugging Face has it, -1 is no label.
    assert source.labels.tolist() == [1, 0, 2, 1, -1, -1]
    assert described(source, data)[3:5] == [
        "train-00000-of-00002.parquet#3",
        "train-00001-of-00002.parquet#0",
    ]
    assert source.remarks[0].endswith("1 rows have no label")
    copy = pickle.loads(pickle.dumps(source))
    assert content(copy) == PHOTOS
    assert copy.describe(5) == source.describe(5)
    with source.open(2) as file:
        assert file.read(4) == PHOTOS[2][:4]
    assert open_rows(tmp_path, "val").labels.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "is_found"),
    [
        ({}, True),
        ({"compression": "none"}, True),
        ({"compression": "gzip", "data_page_version": "2.0"}, True),
        ({"compression": "snappy", "data_page_version": "2.0"}, True),
        ({"compression": "zstd", "data_page_size": 1 << 18}, True),
        ({"compression": "brotli", "use_dictionary": False}, True),
        ({"compression": "lz4", "use_dictionary": False}, True),
        ({"use_dictionary": False, "data_page_version": "2.0"}, True),
        ({"use_content_defined_chunking": True, "write_page_index": True}, True),
        (
            {"use_dictionary": False, "column_encoding": {"label": "PLAIN"}},
            True,
        ),
        (
            {
                "use_dictionary": False,
                "column_encoding": {
                    "image.bytes": "DELTA_LENGTH_BYTE_ARRAY",
                    "image.path": "PLAIN",
                    "label": "PLAIN",
                },
            },
            False,
        ),
    ],
)
def test_every_way_to_write_a_file_gives_the_same_bytes(tmp_path, options, is_found):
    photos = [*large_photos(20), None, b""]
    labels = [0] * len(photos)
    write_parquet(tmp_path / "a.parquet", photos, labels, row_group_size=9, **options)
    source = open_rows(tmp_path)
    assert [source.read(i) for i in range(20)] == photos[:20]
    for row in (20, 21):
        assert "no photo" in (why_unreadable(source, row) or "")
    # Most photos are read alone, with parts of blocks around them.
    places = source._places[:20]
    assert np.all((places["stored"] > 0) == is_found)
    if options.get("compression", "snappy") == "snappy" and is_found:
        large = places["length"] > 100_000
        assert np.all(places["stored"][large] < places["length"][large] + (1 << 17))


def test_photos_that_cannot_be_found_alone_are_read_by_row_groups(tmp_path, capsys):
    photos = large_photos(12)
    encoding = {
        "image.bytes": "DELTA_LENGTH_BYTE_ARRAY",
        "image.path": "PLAIN",
        "label": "PLAIN",
    }
    write_parquet(
        tmp_path / "a.parquet",
        photos,
        [0] * 12,
        row_group_size=2,
        use_dictionary=False,
        column_encoding=encoding,
    )
    source = open_rows(tmp_path)
    parquet._load_row_group.cache_clear()
    assert [source.read(i) for i in (11, 10, 3, 11)] == [
        photos[i] for i in (11, 10, 3, 11)
    ]
    assert parquet._load_row_group.cache_info()[:2] == (2, 2)
    assert parquet._load_row_group.cache_info().currsize == parquet.GROUPS_KEPT
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    with pytest.raises(OSError, match="changed since it was indexed"):
        source.read(0)


def test_what_reading_a_photo_costs_is_said_where_it_is_much(tmp_path, capsys):
    rng = np.random.default_rng(0)
    photos = [rng.bytes(50_000) for _ in range(60)]
    root = write_parquet(tmp_path / "a.parquet", photos, [0] * 60, compression="zstd")
    open_rows(root)
    said = capsys.readouterr().out
    assert "WARNING: " in said
    assert "to read a photo of 50 kB, 3.0 MB of its file are read" in said
    write_parquet(root, photos, [0] * 60)
    open_rows(root)
    assert "WARNING" not in capsys.readouterr().out


def test_labels_may_be_names_in_any_form(tmp_path):
    names = ["cow", "ant", "", None, "cow", "bee"]
    write_parquet(tmp_path / "a.parquet", PHOTOS, names)
    source = open_rows(tmp_path)
    assert source.class_names == ["ant", "bee", "cow"]
    assert source.labels.tolist() == [2, 0, -1, -1, 2, 1]
    kind = pa.dictionary(pa.int8(), pa.large_string())
    write_parquet(tmp_path / "a.parquet", PHOTOS, names, label_type=kind)
    assert open_rows(tmp_path).labels.tolist() == [2, 0, -1, -1, 2, 1]
    # Digits in a column of text are names.
    write_parquet(tmp_path / "a.parquet", PHOTOS[:2], ["10", "9"])
    assert open_rows(tmp_path).class_names == ["10", "9"]
    (tmp_path / "classes.txt").write_text("9\n10\n")
    assert open_rows(tmp_path).labels.tolist() == [1, 0]


def test_photos_without_a_column_of_labels_have_none(tmp_path):
    write_parquet(tmp_path / "a.parquet", PHOTOS[:2], None)
    source = open_rows(tmp_path)
    assert source.labels.tolist() == [-1, -1]
    assert source.class_names == []
    assert "no column 'label' among image" in source.remarks[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ("img", "label")},
            r"a\.parquet: one column 'image' .*found img \(s",
        ),
        ({"label_type": pa.float32()}, r"a\.parquet: a column 'label' .*found float"),
        ({"class_names": ["a", "b"]}, r"a\.parquet#2: the label '2' was found"),
    ],
)
def test_columns_of_other_names_and_types_are_refused(tmp_path, options, message):
    write_parquet(tmp_path / "a.parquet", PHOTOS[:3], [0, 1, 2], **options)
    with pytest.raises(InputError, match=message) as raised:
        open_rows(tmp_path)
    assert "a Parquet file was expected" not in str(raised.value)


@pytest.mark.parametrize("name", ["image", "label"])
def test_of_two_columns_of_one_name_none_is_chosen(tmp_path, name):
    columns = [pa.array(PHOTOS[:2]), pa.array([0, 1])]
    more = columns[["image", "label"].index(name)]
    table = pa.Table.from_arrays([*columns, more], ["image", "label", name])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"one column 'image' .*{name}.*, {name} \("):
        open_rows(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", PHOTOS[:1], [0])
    write_parquet(tmp_path / "b.parquet", PHOTOS[:1], ["ant"])
    with pytest.raises(
        InputError, match=r"numbers \('0' of .*a\.parquet#0\) and names"
    ):
        open_rows(tmp_path)
    write_parquet(tmp_path / "a.parquet", PHOTOS[:1], [0], class_names=["x", "y"])
    write_parquet(tmp_path / "b.parquet", PHOTOS[:1], [0], class_names=["y", "x"])
    with pytest.raises(InputError, match=r"b\.parquet#0 names 2 classes"):
        open_rows(tmp_path)


def test_rows_of_paths_alone_are_no_photos(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": "1.jpg"}] * 2, kind)
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no photos in 1 .*\n.*2 of 2 rows have no p"):
        open_rows(tmp_path)


def test_metadata_that_cannot_be_read_is_said(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", PHOTOS[:2], [0, 1])
    for metadata in ("{", json.dumps({"info": 3})):
        table = pq.read_table(path).replace_schema_metadata({"huggingface": metadata})
        pq.write_table(table, path)
        source = open_rows(tmp_path)
        assert source.class_names == ["0", "1"]
        assert "metadata cannot be read" in source.remarks[0]


def test_torn_and_empty_files_are_named(tmp_path):
    photos = large_photos(12)
    good = tmp_path / "good.parquet"
    write_parquet(good, photos, [0] * 12, row_group_size=4)
    bad = tmp_path / "bad" / "a.parquet"
    bad.parent.mkdir()
    for size in (good.stat().st_size - 20, 100, 0):
        shutil.copy(good, bad)
        os.truncate(bad, size)
        with pytest.raises(InputError, match=r"bad/a\.parquet: a Parquet file was exp"):
            open_rows(bad.parent)
    # Damage in the middle, of what is packed.
    shutil.copy(good, bad)
    column = pq.read_metadata(good).row_group(1).column(0)
    with bad.open("r+b") as file:
        file.seek(column.dictionary_page_offset)
        file.write(b"\xff" * 40)
    with pytest.raises(InputError, match=r"bad/a\.parquet: .*rows 4 to 7: .*copy it"):
        open_rows(bad.parent)
    write_parquet(bad, [], [], label_type=pa.int64())
    with pytest.raises(InputError, match=r"no photos in 1 .*\n.*a\.parquet: no rows"):
        open_rows(bad.parent)
    # Beside others, a file without rows is a line.
    shutil.copy(good, bad.with_name("b.parquet"))
    source = open_rows(bad.parent)
    assert len(source) == 12
    assert source.describe(0).endswith("b.parquet#0")
    assert "no rows" in source.remarks[0]


def test_a_fault_of_the_storage_leaves_no_slow_index(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", PHOTOS, [0] * 6)
    read_at = random_access.read_at

    def fails(place, offset, length, *, stamp):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(random_access, "read_at", fails)
    with pytest.raises(InputError, match=r"a\.parquet: .*Input/output error"):
        open_rows(path)
    monkeypatch.setattr(random_access, "read_at", read_at)
    assert np.all(open_rows(path)._places["stored"] > 0)


def test_a_row_that_is_no_photo_is_one_unreadable_photo(tmp_path):
    path = tmp_path / "a.parquet"
    photo = noise_photo(0).tobytes()
    write_parquet(path, [PHOTOS[0], photo, None, PHOTOS[1][:30]], [0, 1, 0, 1])
    source = open_rows(path)
    reasons = [why_unreadable(source, row) is None for row in range(4)]
    assert reasons == [True, False, False, False]
    assert "1 of 4 rows have no photo" in source.remarks[0]
