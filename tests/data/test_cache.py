"""Copies and lists on the local disk: whole, used again, and never needed."""

from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.data import cache
from multigrain_jax.data.cache import LocalCache, cache_folder, kept_labels, write_whole


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "multigrain_jax"


@pytest.fixture
def full_disk(monkeypatch):
    def fail(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_whole", fail)


def test_a_file_is_copied_when_it_is_first_read(tmp_path):
    slow, fast = tmp_path / "slow.jpg", tmp_path / "new" / "fast"
    slow.write_bytes(b"photo")
    assert LocalCache(fast).read(slow) == b"photo"
    slow.unlink()
    assert LocalCache(fast).read(slow) == b"photo"
    with pytest.raises(FileNotFoundError):
        LocalCache(fast).read(tmp_path / "other.jpg")
    # Of a name that says nothing of the file's, and nothing partial beside it.
    assert [len(path.name) for path in fast.glob("*/*")] == [64]


def test_files_of_one_name_in_two_folders_are_two(tmp_path):
    local = LocalCache(tmp_path / "fast")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_text(folder)
    assert [local.read(tmp_path / f / "1.jpg") for f in ("a", "b")] == [b"a", b"b"]


def test_a_full_cache_disk_does_not_stop_reading(tmp_path, full_disk):
    (tmp_path / "1.jpg").write_bytes(b"photo")
    local = LocalCache(tmp_path / "fast")
    assert local.read(tmp_path / "1.jpg") == local.read(tmp_path / "1.jpg") == b"photo"


def test_lists_are_kept_in_the_users_cache_folder(home, tmp_path, monkeypatch):
    assert cache_folder("labels") == home / "labels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("labels") == tmp_path / ".cache" / "multigrain_jax" / "labels"


class Labels:
    """A hundred thousand labels, and how often they were read."""

    count = 100_000

    def __init__(self):
        self.reads = 0

    def read(self):
        self.reads += 1
        return np.arange(self.count, dtype=np.int32)

    def kept(self, *key):
        found = kept_labels(key or ("data", "train"), self.count, self.read)
        np.testing.assert_array_equal(found, np.arange(self.count))
        assert found.dtype == np.int32
        return self.reads


def test_labels_are_read_once_for_each_key(home, capsys):
    labels = Labels()
    assert [labels.kept(), labels.kept()] == [1, 1]
    assert capsys.readouterr().out == "reading the 100000 labels of data once …\n"
    assert [labels.kept("data", "val"), labels.kept()] == [2, 2]


@pytest.mark.parametrize("damaged", [b"", b"cut off", None])
def test_a_damaged_list_is_read_anew(home, damaged):
    labels = Labels()
    labels.kept()
    (path,) = (home / "labels").iterdir()
    path.write_bytes(path.read_bytes()[:-3] if damaged is None else damaged)
    assert [labels.kept(), labels.kept()] == [2, 2]


def test_a_list_of_another_length_is_not_taken(home):
    labels = Labels()
    labels.kept()
    (path,) = (home / "labels").iterdir()
    np.save(path, np.arange(7, dtype=np.int32))
    assert labels.kept() == 2


def test_a_list_that_cannot_be_kept_is_used_all_the_same(home, full_disk, capsys):
    labels = Labels()
    assert [labels.kept(), labels.kept()] == [1, 2]
    assert "labels of data could not be kept in" in capsys.readouterr().out


def test_the_folder_of_a_whole_file_is_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file", b"data")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"data"
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


def test_the_cache_folder_may_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder("weights") == Path("/x/multigrain_jax/weights")
    monkeypatch.setenv("MULTIGRAIN_CACHE", "~/kept")
    assert cache_folder("weights") == tmp_path / "kept" / "weights"
    monkeypatch.setenv("MULTIGRAIN_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("weights") == tmp_path / ".cache" / "multigrain_jax" / "weights"


def test_a_name_that_is_no_utf8_has_a_copy(tmp_path):
    path = tmp_path / "\udcff.jpg"
    path.write_bytes(b"photo")
    cache = LocalCache(tmp_path / "cache")
    assert cache.read(path) == b"photo"
    path.unlink()
    assert cache.read(path) == b"photo"
