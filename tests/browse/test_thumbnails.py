"""A folder of thumbnails that stays small."""

import os
from types import SimpleNamespace

import pytest

from multigrain_jax.browse.photo_files import PhotoRefusedError
from multigrain_jax.browse.thumbnails import ThumbnailCache, Thumbnails
from multigrain_jax.descriptors.folder import ImageStamp


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


def test_the_longest_unused_go_first(tmp_path):
    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    keys = [f"{n:02d}abc" for n in range(11)]
    for number, key in enumerate(keys[:10]):
        cache.put(key, bytes(100))
        os.utime(tmp_path / key[:2] / "abc.jpg", ns=(number, number))
    assert cache.get(keys[0]) == bytes(100)  # used now
    cache.put(keys[10], bytes(100))
    assert size_of(tmp_path) == 800
    gone = [key for key in keys if cache.get(key) is None]
    assert gone == keys[1:4]


def test_a_cache_knows_what_an_earlier_run_left(tmp_path):
    ThumbnailCache(tmp_path, max_bytes=1000).put("aaa", bytes(900))
    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    assert cache.get("aaa") is not None
    cache.put("bbb", bytes(200))
    assert cache.get("aaa") is None and cache.get("bbb") is not None


def test_a_disk_that_takes_nothing_costs_the_cache_alone(tmp_path):
    cache = ThumbnailCache(tmp_path / "thumbnails", max_bytes=1000)
    (tmp_path / "thumbnails").rmdir()
    cache.put("aaa", b"x")
    assert cache.get("aaa") is None


def test_a_thumbnail_is_made_once_for_each_form_of_a_photo(tmp_path):
    made, stamps = [], [ImageStamp("/p/a.jpg", 1, 1)]
    files = SimpleNamespace(read=lambda row: b"photo", require_shown=lambda row: None)

    def decode(data):
        made.append(data)
        return b"small"

    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    thumbnails = Thumbnails(files, cache, stamp=lambda row: stamps[row], decode=decode)
    assert thumbnails.get(0) == thumbnails.get(0) == b"small"
    assert len(made) == 1
    stamps[0] = stamps[0]._replace(mtime_ns=2)
    thumbnails.get(0)
    assert len(made) == 2

    def refuse(row):
        raise PhotoRefusedError("no")

    files.require_shown = refuse
    with pytest.raises(PhotoRefusedError):
        thumbnails.get(0)
