import os

import numpy as np
import pytest
from helpers.photos import plain_photo
from helpers.shards import samples, write_tar
from helpers.sources import open_photos

from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources.random_access import stamp_file
from multigrain_jax.data.sources.shard_index import INDEX_SUFFIX, load_index

PHOTOS = [plain_photo(20 * number) for number in range(4)]


def open_tars(root, split=None, **options):
    return open_photos(root, split, source="webdataset", **options)


def content(source):
    return [source.read(i) for i in range(len(source))]


def test_the_index_is_made_once_and_anew_for_another_file(tmp_path, capsys, cache_home):
    path = write_tar(tmp_path / "a.tar", samples(PHOTOS[:2], [0, 1]))
    made = content(open_tars(tmp_path))
    assert "looking once" in capsys.readouterr().out
    index = tmp_path / f"a.tar{INDEX_SUFFIX}"
    assert index.is_file()
    again = open_tars(tmp_path)
    assert "looking once" not in capsys.readouterr().out
    assert content(again) == made
    # An index that is damaged counts as none.
    index.write_bytes(index.read_bytes()[:-40])
    assert content(open_tars(tmp_path)) == made
    assert "looking once" in capsys.readouterr().out
    before = open_tars(tmp_path)
    write_tar(path, samples(PHOTOS[1:], [0, 1, 1]))
    os.utime(path, ns=(1, 1))
    assert content(open_tars(tmp_path)) == PHOTOS[1:]
    with pytest.raises(OSError, match=r"a\.tar has changed since it was indexed"):
        before.read(0)
    assert "has changed" in (why_unreadable(before, 0) or "")


def test_where_nothing_can_be_written_the_index_is_in_the_cache(
    tmp_path, capsys, monkeypatch, cache_home
):
    write_tar(tmp_path / "a.tar", samples(PHOTOS[:2], [0, 1]))
    # As root, no folder is read-only: what is in the way keeps the file out.
    (tmp_path / f"a.tar{INDEX_SUFFIX}" / "x").mkdir(parents=True)
    open_tars(tmp_path)
    assert [path.suffix for path in cache_home.rglob("*") if path.is_file()] == [".npz"]
    capsys.readouterr()
    assert content(open_tars(tmp_path)) == PHOTOS[:2]
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "a.tar"))
    assert content(open_tars(tmp_path)) == PHOTOS[:2]
    assert "could not be kept" in capsys.readouterr().out


def test_an_index_whose_places_are_outside_of_its_file_counts_as_none(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(PHOTOS[:2], [0, 1]))
    open_tars(tmp_path)
    index = tmp_path / f"a.tar{INDEX_SUFFIX}"
    stored = dict(np.load(index))
    assert load_index(str(path), stamp_file(str(path)), "webdataset") is not None
    assert load_index(str(path), stamp_file(str(path)), "parquet") is None
    stored["places"]["stored"] += 1 << 20
    with index.open("wb") as file:
        np.savez(file, **stored)
    assert load_index(str(path), stamp_file(str(path)), "webdataset") is None
