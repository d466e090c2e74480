"""index.json, and the files that it names."""

import json

import numpy as np
import pytest
from helpers.approximate import SETTINGS

from multigrain_jax.descriptors.approximate.engine import Part, Stored
from multigrain_jax.descriptors.approximate.record import (
    Record,
    find_index,
    read_record,
    read_rows,
    write_record,
    write_rows,
)
from multigrain_jax.descriptors.folder import Shard
from multigrain_jax.errors import InputError


@pytest.fixture
def record(tmp_path):
    held = np.arange(11) % 3 == 0
    name, digest = write_rows(tmp_path, held)
    part = Part(0, 2, 4, name, digest, Stored("part-0.faiss", 5, "e"))
    shards = (Shard(7, 100, "a"), Shard(4, 80, None))
    settings = SETTINGS._replace(test_sizes=(48, 64))
    record = Record(settings, "faiss", {"kind": "auto"}, {}, shards, (3, 4), (part,))
    write_record(tmp_path, record)
    return record


def test_it_is_read_as_it_was_written(record, tmp_path):
    assert read_record(tmp_path) == record
    held = read_rows(tmp_path, record.parts[0], 11)
    np.testing.assert_array_equal(held, np.arange(11) % 3 == 0)
    assert find_index(tmp_path) == tmp_path
    (tmp_path / "w").mkdir()
    tmp_path.rename(tmp_path.with_name("index"))
    assert find_index(tmp_path.parent) == tmp_path.with_name("index")


def test_what_is_not_named_is_removed_and_nothing_else(record, tmp_path):
    names = ("part-000001-ab.faiss", "rows-ab.bits", "trained-ab.faiss", "a.partial")
    for name in (*names, "milvus.db", "notes.txt", "part-0.faiss"):
        (tmp_path / name).touch()
    write_record(tmp_path, record)
    left = {path.name for path in tmp_path.iterdir()}
    named = {"index.json", record.parts[0].rows_file, "part-0.faiss"}
    assert left == {*named, "milvus.db", "notes.txt"}


@pytest.mark.parametrize("file", ["index.json", "rows"])
def test_every_byte_that_changes_is_found(record, tmp_path, file):
    path = tmp_path / (file if file != "rows" else record.parts[0].rows_file)
    whole = path.read_bytes()
    for place in range(0, len(whole), 1 if file == "rows" else 17):
        for data in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            if data == whole:
                continue
            path.write_bytes(data)
            with pytest.raises(InputError, match=rf"{file}.*(index|anew)"):
                read_rows(tmp_path, read_record(tmp_path).parts[0], 11)
    path.unlink()
    with pytest.raises(InputError, match=r"index|anew"):
        read_rows(tmp_path, read_record(tmp_path).parts[0], 11)


def test_another_format_is_refused(record, tmp_path):
    values = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**values, "format_version": 2}))
    with pytest.raises(InputError, match="format_version 2 found, 1 expected"):
        read_record(tmp_path)


def test_parts_that_do_not_follow_each_other_are_refused(record, tmp_path):
    part = record.parts[0]
    for parts in ((), (part._replace(first_shard=1),), (part, part)):
        write_record(tmp_path, record._replace(parts=parts))
        with pytest.raises(InputError, match="its parts"):
            read_record(tmp_path)


def test_rows_are_mended_where_a_file_of_their_name_is_damaged(tmp_path):
    held = np.ones(9, bool)
    name, _ = write_rows(tmp_path, held)
    (tmp_path / name).write_bytes(b"")
    assert write_rows(tmp_path, held)[0] == name
    assert (tmp_path / name).read_bytes() == b"\xff\x80"
