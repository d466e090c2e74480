"""Reading descriptor folders: settings, index, and files that were edited."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from helpers import descriptor_folders

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors.folder import (
    OK,
    VANISHED,
    ImageStamp,
    IndexRow,
    read_head,
    require_same_settings,
    shard_path,
)
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError
from multigrain_jax.trees import json_digest

SETTINGS = descriptor_folders.SETTINGS._replace(dim=2, dtype="float32")


@pytest.fixture
def folder(tmp_path):
    """Three images, the second of them unreadable."""
    images = [ImageStamp(f"/p/{number}.jpg", 10 + number, 5) for number in range(3)]
    writer = DescriptorWriter(tmp_path, SETTINGS, rows_per_shard=9)
    writer.begin(images, lambda indices: indices)
    writer.add(images, np.eye(3, 2, dtype=np.float32), [OK, "empty file", OK])
    writer.finish()
    return tmp_path


def test_head_and_index_say_what_there_is(folder):
    head = read_head(folder)
    assert head.settings == SETTINGS  # an infinite exponent too, which JSON lacks
    assert (head.num_rows, head.num_finished_rows, head.num_shards) == (3, 3, 1)
    assert list(read_index(folder, 3)) == [
        IndexRow(ImageStamp("/p/0.jpg", 10, 5), 0, 0, OK),
        IndexRow(ImageStamp("/p/1.jpg", 11, 5), None, None, "empty file"),
        IndexRow(ImageStamp("/p/2.jpg", 12, 5), 0, 1, OK),
    ]
    np.testing.assert_array_equal(np.load(shard_path(folder, 0)), [[1, 0], [0, 0]])


def test_lines_that_are_not_counted_are_not_read(folder):
    with (folder / "index.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("/p/4.jpg", 1, 1, "", "", VANISHED))
        file.write("/p/5.jp")
    assert len(list(read_index(folder, 3))) == 3


def test_other_settings_are_refused_with_all_differences(tmp_path):
    require_same_settings(SETTINGS, SETTINGS, folder=tmp_path)
    other = SETTINGS._replace(test_size=96, model_digest="e")
    with pytest.raises(InputError) as error:
        require_same_settings(SETTINGS, other, folder=tmp_path)
    assert "test_size: the folder has 64, this run 96" in str(error.value)
    assert "model_digest: the folder has d, this run e" in str(error.value)
    assert str(error.value).count("the folder has") == 2


EXACT = VIEWER.record()
FAST = dataclasses.replace(VIEWER, fast=True).record()
BLACK = dataclasses.replace(VIEWER, background=(0, 0, 0)).record()


@pytest.mark.parametrize(
    ("record", "decode"),
    [(None, "exact"), (EXACT, "exact"), (FAST, "fast"), ("upright, fast", "fast")],
)
def test_settings_say_how_photos_were_decoded(record, decode):
    assert SETTINGS._replace(decoding=record).decode == decode


@pytest.mark.parametrize(
    ("found", "expected", "remedy"),
    [
        (FAST, EXACT, "these with {0}exact, or the others with {0}fast"),
        (EXACT, FAST, "these with {0}fast, or the others with {0}exact"),
        (EXACT, BLACK, "with the same data.decoding, data.background, data.depth and"),
        # No key makes a folder without a record.
        (None, FAST, "with the same data.decoding, data.background, data.depth and"),
    ],
)
def test_photos_that_were_decoded_otherwise_are_told_with_the_remedy(
    found, expected, remedy, tmp_path
):
    one, other = (SETTINGS._replace(decoding=d) for d in (found, expected))
    with pytest.raises(InputError) as error:
        require_same_settings(one, other, folder=tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path}: its photos were decoded otherwise than those")
    assert remedy.format("--config.data.decode=") in said
    assert f"decoding: the folder has {found}, this run {expected}" in said
    with pytest.raises(InputError, match="use the same model and sizes"):
        require_same_settings(one, other._replace(test_size=96), folder=tmp_path)


def test_another_format_is_refused(folder):
    head = folder / "descriptors.json"
    head.write_text(head.read_text().replace('version": 2', 'version": 3'))
    with pytest.raises(InputError, match="format_version 3 found, 1 or 2 expected"):
        read_head(folder)


def test_files_that_were_edited_are_named(folder):
    index = folder / "index.csv"
    index.write_bytes(index.read_bytes().replace(b",0,1,ok", b",0,one,ok"))
    with pytest.raises(InputError, match=r"index\.csv, row 4: .*'one'"):
        list(read_index(folder, 3))
    head = folder / "descriptors.json"
    values = json.loads(head.read_text())
    for edited in ({**values, "num_rows": None}, {"format_version": 1}, []):
        head.write_text(json.dumps(edited))
        with pytest.raises(InputError, match=r"descriptors\.json"):
            read_head(folder)


def write_head(folder, settings):
    DescriptorWriter(folder, settings, rows_per_shard=9).begin([], lambda all: all)
    return json.loads((folder / "descriptors.json").read_text())


def test_several_sizes_are_a_setting_that_one_size_does_without(tmp_path):
    several = SETTINGS._replace(test_sizes=(48, 64))
    assert (SETTINGS.sizes, several.sizes) == ((64,), (48, 64))
    # Older versions know no such key, and read what is made at one size.
    assert "test_sizes" not in write_head(tmp_path / "one", SETTINGS)
    values = write_head(tmp_path / "several", several)
    assert (values["test_sizes"], values["test_size"]) == ([48, 64], 64)
    assert read_head(tmp_path / "one").settings == SETTINGS
    assert read_head(tmp_path / "several").settings == several
    for one, other, said in (
        (several, SETTINGS, "the folder has (48, 64), this run 64"),
        (SETTINGS, several, "the folder has 64, this run (48, 64)"),
        (several, SETTINGS._replace(test_size=48), "the folder has (48, 64), this r"),
    ):
        with pytest.raises(InputError) as error:
            require_same_settings(one, other, folder=tmp_path)
        assert f"\n  test_size: {said}" in str(error.value)
        assert str(error.value).count("the folder has") == 1
    with pytest.raises(InputError, match="made otherwise"):
        DescriptorWriter(tmp_path / "several", SETTINGS, rows_per_shard=9)


@pytest.mark.parametrize(
    "sizes", [[], [64], [64, 48], [48, 48, 64], [48, 60], ["48", 64], "4864", None]
)
def test_sizes_that_embed_does_not_write_are_refused(tmp_path, sizes):
    values = write_head(tmp_path, SETTINGS._replace(test_sizes=(48, 64)))
    values = {name: value for name, value in values.items() if name != "digest"}
    del values["format_version"]
    values["test_sizes"] = sizes
    sealed = {"format_version": 2, **values, "digest": json_digest(values)}
    (tmp_path / "descriptors.json").write_text(json.dumps(sealed))
    with pytest.raises(InputError, match=r"not what the task .* test_sizes is"):
        read_head(tmp_path)
