"""Copies and lists on the local disk: whole, used again, and never needed."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.data import cache
from multigrain_jax.data.cache import LocalCache, cache_folder, kept_labels, write_whole
from multigrain_jax.errors import InputError


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


class Photo:
    """A file that is read through a cache, and how often it was read itself."""

    def __init__(self, folder, content=b"photo"):
        self.path, self.folder, self.reads = folder / "1.jpg", folder / "fast", 0
        self.path.write_bytes(content)

    def read(self, **options):
        """Through a cache of its own, as in another process."""
        real, photo = Path.open, self

        def counted(path, *arguments, **named):
            photo.reads += path == photo.path
            return real(path, *arguments, **named)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Path, "open", counted)
            return LocalCache(self.folder, **options).read(self.path)

    def copies(self):
        return sorted(self.folder.glob("*/*"))

    def replace(self, content):
        """Other content, with the time of the old one."""
        status = self.path.stat()
        self.path.write_bytes(content)
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def photo(tmp_path):
    return Photo(tmp_path)


def _copy_of(local, path):
    status = path.stat()
    return local._copy_of(os.fsencode(path), status.st_size, status.st_mtime_ns)


def test_a_file_is_copied_when_it_is_first_read(photo):
    assert [photo.read(), photo.read()] == [b"photo"] * 2 and photo.reads == 1
    # Of a name that says nothing of the file's, and nothing partial beside it.
    assert [len(path.name) for path in photo.copies()] == [64]
    photo.path.unlink()
    with pytest.raises(FileNotFoundError):
        photo.read()


def test_an_empty_file_has_a_copy(tmp_path):
    photo = Photo(tmp_path, b"")
    assert [photo.read(), photo.read()] == [b"", b""] and photo.reads == 1


def test_a_replaced_file_is_read_anew(photo):
    photo.read()
    photo.replace(b"another")  # of another size
    assert photo.read() == b"another"
    photo.path.write_bytes(b"ANOTHER")
    os.utime(photo.path, ns=(0, 1))  # of another time, by a nanosecond
    assert photo.read() == b"ANOTHER"
    os.utime(photo.path, ns=(0, 2))
    photo.reads = 0
    assert [photo.read(), photo.read()] == [b"ANOTHER"] * 2 and photo.reads == 1


def test_a_replaced_file_of_the_same_size_and_time_is_found_on_demand(photo, capsys):
    photo.read()
    photo.replace(b"OTHER")
    assert photo.read() == b"photo"
    assert photo.read(compare=True) == b"OTHER"
    said = f"{photo.path}: the local copy was of another content, and is made anew\n"
    assert capsys.readouterr().out == said
    assert [photo.read(compare=True), photo.read()] == [b"OTHER"] * 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: b"",
        lambda sealed: sealed[:3],
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"x",
        lambda sealed: bytes(len(sealed)),
        lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:],
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
    ],
)
def test_a_damaged_copy_is_thrown_away(photo, damage):
    photo.read()
    (copy,) = photo.copies()
    whole = copy.read_bytes()
    copy.write_bytes(damage(whole))
    assert photo.read() == b"photo" and photo.reads == 2
    assert copy.read_bytes() == whole
    assert photo.read() == b"photo" and photo.reads == 2


def test_a_copy_that_is_a_folder_is_no_copy(photo):
    photo.read()
    (copy,) = photo.copies()
    copy.unlink()
    copy.mkdir()
    assert [photo.read(), photo.read()] == [b"photo"] * 2 and photo.reads == 3


def test_a_file_that_changes_while_it_is_read_is_not_kept(photo, monkeypatch):
    """Neither under its old state nor under the new one."""
    real = os.fstat

    def changed(number):
        os.utime(photo.path, ns=(0, 1))
        return real(number)

    with monkeypatch.context() as patched:
        patched.setattr(cache.os, "fstat", changed)
        assert photo.read() == b"photo"
    assert photo.copies() == []


def fill(folder, numbers, max_bytes, size=996):
    """Read so many files of `size` bytes through a cache, and return their paths."""
    local, paths = LocalCache(folder / "fast", max_bytes=max_bytes), []
    for number in numbers:
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(bytes([number]) * size)
        assert local.read(paths[-1]) == bytes([number]) * size
    return paths


def sizes(folder):
    copies = (folder / "fast").glob("*/*")
    return {path: path.stat().st_size for path in copies if path.is_file()}


def test_the_oldest_copies_go_when_there_are_too_many(tmp_path):
    paths = fill(tmp_path, range(15), 20_000)
    assert len(sizes(tmp_path)) == 15
    # The times of copies that are made within a moment may be the same.
    for age, path in enumerate(paths[::-1]):
        local = LocalCache(tmp_path / "fast")
        copy = _copy_of(local, path)
        os.utime(copy, (1e9 - age, 1e9 - age))
    later = fill(tmp_path, range(15, 40), 20_000)
    kept = sizes(tmp_path)
    assert 10_000 < sum(kept.values()) <= 20_000
    for path, stays in [*((path, False) for path in paths[:10]), (later[-1], True)]:
        assert (_copy_of(local, path) in kept) == stays


def test_what_is_no_copy_stays(tmp_path):
    others = ["fast/notes.txt", "fast/ab/notes.txt", "fast/more/" + "0" * 64]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(50_000))
    fill(tmp_path, range(60), 20_000)
    assert all((tmp_path / name).stat().st_size == 50_000 for name in others)
    ours = [size for path, size in sizes(tmp_path).items() if len(path.name) == 64]
    assert 10_000 < sum(ours) - 50_000 <= 20_000


def test_a_file_that_is_large_for_the_cache_is_not_kept(tmp_path):
    fill(tmp_path, range(3), 20_000, size=1251)
    assert sizes(tmp_path) == {}


def read_all(folder, paths, max_bytes):
    local = LocalCache(folder / "fast", max_bytes=max_bytes)
    for _ in range(3):
        for path in paths:
            assert local.read(path) == bytes([int(path.stem)]) * 996


@pytest.mark.parametrize("max_bytes", [None, 40_000])
def test_two_runs_share_a_cache(tmp_path, max_bytes):
    """With room for all, and with copies that one takes away while the other reads."""
    paths = fill(tmp_path, range(60), None)
    context = multiprocessing.get_context("spawn")
    arguments = [(tmp_path, order, max_bytes) for order in (paths, paths[::-1])]
    runs = [context.Process(target=read_all, args=each) for each in arguments]
    for each in runs:
        each.start()
    for each in runs:
        each.join(60)
    assert [each.exitcode for each in runs] == [0, 0]
    assert len(sizes(tmp_path)) == 60 or sum(sizes(tmp_path).values()) <= 40_000
    assert {len(path.name) for path in sizes(tmp_path)} == {64}


def test_what_a_killed_process_has_left_is_removed(photo):
    photo.read()
    (copy,) = photo.copies()
    copy.unlink()
    names = [f"{copy.name[:40]}.{'0' * 15}{n}.partial" for n in range(2)]
    names.append("x.partial")
    for name in names:
        (copy.parent / name).write_bytes(b"pho")
    for name in names[1:]:
        os.utime(copy.parent / name, (1e9, 1e9))
    photo.read()
    # One that is being written stays, and so does a file of somebody else.
    assert {path.name for path in photo.copies()} == {copy.name, names[0], names[2]}


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
    assert [cache.read(path), cache.read(path)] == [b"photo"] * 2
    assert len(list((tmp_path / "cache").glob("*/*"))) == 1


def test_a_user_without_a_home_has_a_folder_that_goes(monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MULTIGRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", homeless)
    cache._folder_of_process.cache_clear()
    try:
        one, other = cache.cache_folder("labels"), cache.cache_folder("folders")
    finally:
        cache._folder_of_process.cache_clear()
    assert one.parent == other.parent and one.parent.parent.stat().st_mode & 0o77 == 0
    assert capsys.readouterr().out.count("MULTIGRAIN_CACHE") == 1


def test_a_cache_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"data\.local_cache_dir: .*name another"):
            LocalCache(place)
