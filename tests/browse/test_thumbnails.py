"""A folder of thumbnails that stays small."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from multigrain_jax.browse.photo_files import PhotoRefusedError
from multigrain_jax.browse.thumbnails import ThumbnailCache, Thumbnails
from multigrain_jax.descriptors.folder import ImageStamp


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


def test_the_longest_unused_go_first(tmp_path):
    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    keys = [f"{n:02d}{'a' * 38}" for n in range(11)]
    for number, key in enumerate(keys[:10]):
        cache.put(key, bytes(100))
        os.utime(tmp_path / key[:2] / f"{'a' * 38}.jpg", ns=(number, number))
    assert cache.get(keys[0]) == bytes(100)  # used now
    cache.put(keys[10], bytes(100))
    assert size_of(tmp_path) == 800
    gone = [key for key in keys if cache.get(key) is None]
    assert gone == keys[1:4]


def test_a_cache_knows_what_an_earlier_run_left(tmp_path):
    first, second = "a" * 40, "b" * 40
    ThumbnailCache(tmp_path, max_bytes=1000).put(first, bytes(900))
    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    assert cache.get(first) is not None
    cache.put(second, bytes(200))
    assert cache.get(first) is None and cache.get(second) is not None


def test_what_others_have_put_there_stays(tmp_path):
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "holiday.jpg").write_bytes(bytes(2000))
    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    cache.put("a" * 40, bytes(900))
    cache.put("b" * 40, bytes(900))
    assert (tmp_path / "20" / "holiday.jpg").exists()
    assert cache.get("a" * 40) is None


def test_a_disk_that_takes_nothing_costs_the_cache_alone(tmp_path):
    cache = ThumbnailCache(tmp_path / "thumbnails", max_bytes=1000)
    (tmp_path / "thumbnails").rmdir()
    cache.put("aaa", b"x")
    assert cache.get("aaa") is None


def test_a_thumbnail_is_made_once_for_each_form_of_a_photo(tmp_path):
    made, stamps = [], [ImageStamp("/p/a.jpg", 1, 1)]
    files: Any = SimpleNamespace(
        read=lambda row: b"photo", stamp=lambda row: stamps[row]
    )

    def decode(data):
        made.append(data)
        return b"small"

    cache = ThumbnailCache(tmp_path, max_bytes=1000)
    thumbnails = Thumbnails(files, cache, decode=decode)
    key = thumbnails.key(0)
    assert thumbnails.get(0, key) == thumbnails.get(0, key) == b"small"
    assert len(made) == 1
    stamps[0] = stamps[0]._replace(mtime_ns=2)
    thumbnails.get(0, thumbnails.key(0))
    assert len(made) == 2

    def refuse(row):
        raise PhotoRefusedError("no")

    files.stamp = refuse
    with pytest.raises(PhotoRefusedError):
        thumbnails.key(0)
