"""Which folder a path means, and folders of the version before."""

import os
import shutil
import time

import numpy as np
import pytest
from helpers.descriptor_folders import SETTINGS, embed, stamps

from multigrain_jax.descriptors import opening
from multigrain_jax.descriptors.folder import ImageStamp, read_head
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.opening import find_folder, open_folder
from multigrain_jax.errors import InputError


def test_of_several_folders_the_newest_is_opened_and_named(tmp_path, capsys):
    embed(tmp_path / "descriptors", stamps(3))
    assert find_folder(tmp_path) == tmp_path / "descriptors"
    assert capsys.readouterr().out == ""
    time.sleep(0.01)
    other = tmp_path / "tiny-96-e"
    embed(other / "descriptors", stamps(6), settings=SETTINGS._replace(test_size=96))
    assert find_folder(tmp_path) == other / "descriptors"
    assert capsys.readouterr().out == (
        f"{tmp_path}: {other} (tiny, 96 pixels) is opened, the newest; others are "
        f"{tmp_path / 'descriptors'} (tiny, 64 pixels); give the path of the one that "
        "you mean\n"
    )
    assert find_folder(tmp_path / "descriptors") == tmp_path / "descriptors"
    assert capsys.readouterr().out == ""
    assert find_folder(other) == find_folder(other / "descriptors")
    assert open_settings(tmp_path).test_size == 96


def test_of_several_folders_the_newest_that_fits_is_opened(tmp_path, capsys):
    for size in (64, 96, 128):
        folder = tmp_path / f"tiny-{size}" / "descriptors"
        settings = SETTINGS._replace(test_size=size, dtype="float32")
        embed(folder, stamps(3), settings=settings)
        os.utime(folder / "descriptors.json", (size, size))
    assert open_settings(tmp_path).test_size == 128
    assert (
        open_settings(tmp_path, fits=lambda made: made.test_size < 128).test_size == 96
    )
    assert "tiny-96 (tiny, 96 pixels) is opened, the newest that fits; others are" in (
        capsys.readouterr().out
    )
    # Whoever compares them will say what is wrong.
    assert open_settings(tmp_path, fits=lambda made: False).test_size == 128
    assert "the newest, though none fits what was asked for" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such checkpoint"):
        open_settings(tmp_path, fits=without_its_checkpoint)
    (tmp_path / "tiny-96" / "descriptors" / "descriptors.json").write_text("{")
    assert (
        open_settings(tmp_path, fits=lambda made: made.test_size < 128).test_size == 64
    )
    assert "tiny-96 (damaged)" in capsys.readouterr().out


def without_its_checkpoint(made):
    raise InputError("no such checkpoint")


def open_settings(path, **options):
    settings = DescriptorIndex.open(path, **options).settings
    assert settings is not None
    return settings


def test_a_folder_without_descriptors_is_refused(tmp_path):
    embed(tmp_path, [ImageStamp("0.jpg", 100, 0)])
    with pytest.raises(InputError, match="no descriptors in it"):
        open_folder(tmp_path)


@pytest.fixture
def version_1(golden_dir, tmp_path):
    """A folder that the version before has written, and what it found in it."""
    shutil.copytree(golden_dir / "descriptors" / "version_1", tmp_path / "v")
    return tmp_path / "v", np.load(golden_dir / "descriptors" / "version_1_search.npz")


def require_same_search(folder, expected):
    index = DescriptorIndex.open(folder)
    similarities, rows = index.search(expected["queries"], 4)
    np.testing.assert_array_equal(similarities, expected["similarities"])
    np.testing.assert_array_equal(rows, expected["rows"])
    paths = [p.encode("utf-8", "surrogateescape") for p in index.paths(rows.ravel())]
    assert paths == expected["paths"].tolist()


def test_a_folder_of_version_1_finds_what_it_found(version_1):
    folder, expected = version_1
    assert read_head(folder).version == 1
    require_same_search(folder, expected)


def test_a_folder_of_version_1_is_completed_and_finds_the_same(version_1):
    folder, expected = version_1
    settings = SETTINGS._replace(dim=4, model_digest="0" * 64)
    shards = {path.name: path.read_bytes() for path in folder.glob("shard-*")}
    images = [
        ImageStamp("/photos/a.jpg", 100, 99),
        ImageStamp("/photos/d/\udcff.jpg", 102, 7),
        ImageStamp("/photos/e.jpg", 103, 8),
        ImageStamp("/photos/f\nnew.jpg", 104, 9),
        ImageStamp("/photos/=g.jpg", 105, 10),
        ImageStamp("/photos/h.jpg", 106, 11),
        ImageStamp("/photos/i.jpg", 107, 12),
        ImageStamp("/photos/new.jpg", 1, 1),
    ]
    assert embed(folder, images, settings=settings) == []
    head = read_head(folder)
    assert (head.version, len(head.shards)) == (2, 3)
    assert {path.name: path.read_bytes() for path in folder.glob("shard-*")} == shards
    (folder / "index.csv").read_text(encoding="utf-8")
    require_same_search(folder, expected)
    DescriptorIndex.open(folder).verify()


def test_lines_that_are_not_where_they_belong_are_named(tmp_path, monkeypatch):
    """As two writers leave them."""
    embed(tmp_path, stamps(6))
    head, index = opening.open_index(tmp_path)
    shards, rows, live = opening._places(tmp_path, head, index)
    os.close(index)
    assert (shards.dtype, rows.dtype, live.dtype) == (np.int64, np.int64, bool)
    monkeypatch.setattr(opening, "_places", lambda *_: (shards, rows, live))
    open_folder(tmp_path)
    rows[3] += 1
    expected = f"shard {shards[3]}, row {rows[3]} found where shard {shards[3]} was"
    with pytest.raises(InputError, match=expected):
        open_folder(tmp_path)
    rows[3] -= 1
    shards[1] += 7
    with pytest.raises(InputError, match=f"{shards[1]}, row .* {shards[1] - 7} was"):
        open_folder(tmp_path)
    monkeypatch.setattr(opening, "_places", lambda *_: (shards[1:], rows[1:], live))
    with pytest.raises(InputError, match="4 descriptors, but 3 lines"):
        open_folder(tmp_path)
