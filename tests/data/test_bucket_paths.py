"""A folder of a bucket answers like the same folder of this machine."""

import os
import pickle
from pathlib import Path

import pytest

from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.data.bucket_paths import (
    BucketPath,
    absolute_path,
    as_path,
    list_names,
    open_object,
)
from multigrain_jax.data.cache import LocalCache
from multigrain_jax.errors import InputError
from multigrain_jax.files import read_json, read_small
from multigrain_jax.weights import keep_weights

FILES = ("a/one.jpg", "a/b/two.txt", "c/b/two.txt", "three.json")


@pytest.fixture
def both(request, tmp_path):
    """The same files in a folder and in a bucket of each kind."""

    def make(scheme: str) -> tuple[Path, Path]:
        bucket = request.getfixturevalue(scheme)
        for name in FILES:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"[1]" * len(name))
        bucket.put_folder(tmp_path, "some/where")
        return tmp_path, as_path(bucket.url("some/where"))

    return make


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("scheme", ["gcs", "s3"])
def test_it_answers_like_a_folder(both, scheme, is_listed):
    local, remote = both(scheme)
    if is_listed:  # else each of them is asked for
        assert remote.is_dir()
    for name in (*FILES, "a", "a/b", "nothing", "a/one.jp", "a/one.jpg/x"):
        here, there = local / name, remote / name
        assert there.is_dir() == here.is_dir(), name
        assert there.is_file() == here.is_file(), name
        assert there.exists() == here.exists(), name
        if here.is_file():
            assert there.stat().st_size == here.stat().st_size
            assert there.read_bytes() == here.read_bytes()
            assert read_small(there, max_bytes=100) == read_small(here, max_bytes=100)
        if here.is_dir():
            assert sorted(list_names(there)) == sorted(list_names(here))
            names = sorted(path.name for path in there.iterdir())
            assert names == sorted(path.name for path in here.iterdir())
    for pattern in ("*", "*/b", "*/*/two.txt", "three.*", "x/*"):
        found = sorted(str(p.relative_to(remote)) for p in remote.glob(pattern))
        assert found == sorted(str(p.relative_to(local)) for p in local.glob(pattern))
    with pytest.raises(OSError, match="at most 0 MiB"):
        read_small(remote / "three.json", max_bytes=3)
    with pytest.raises(FileNotFoundError):
        (remote / "nothing").stat()
    with pytest.raises(OSError, match="read only"):
        (remote / "new").open("w")
    with pytest.raises(FileNotFoundError):
        list_names(remote / "nothing")


def test_its_name_is_the_address_whatever_becomes_of_it(gcs):
    path = as_path(gcs.url("x/y"))
    assert str(path) == f"{path}" == os.fspath(path) == gcs.url("x/y")
    assert str(path / "z") == gcs.url("x/y/z") == f"{path}/z"
    assert str(path.parent) == gcs.url("x") and path.name == "y"
    assert str(path.absolute()) == gcs.url("x/y")
    assert pickle.loads(pickle.dumps(path)) == path
    for same in (as_path(path), as_path(Path(str(path))), as_path(f"{path}/")):
        assert same == path and type(same) is BucketPath
    assert isinstance(path.with_name("w"), BucketPath)


def test_paths_of_this_machine_stay_what_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/x") == tmp_path / "x" and type(as_path("x")) is type(Path())
    assert absolute_path("x/../y") == str(Path("y").absolute())
    assert absolute_path("gs:/b/x/") == absolute_path("gs://b/x") == "gs://b/x"
    with pytest.raises(InputError, match="gs://BUCKET/NAME"):
        as_path("http://example.org/x")


def test_what_is_written_by_programs_stays_on_this_machine(gcs, tmp_path):
    before = os.listdir()
    url, weights = gcs.url("somewhere"), tmp_path / "weights.pth"
    for call in (
        lambda: convert_checkpoint(url, tmp_path / "new"),
        lambda: convert_checkpoint(weights, url),
        lambda: export_checkpoint(tmp_path, url),
        lambda: keep_weights("joint_3B_0.5", url),
        lambda: LocalCache(url),
    ):
        with pytest.raises(InputError, match=rf"found {url}, expected a .*machine"):
            call()
    assert os.listdir() == before


def test_what_is_opened_is_kept_by_its_version(gcs, monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path))
    path = as_path(gcs.url("list.json"))
    gcs.put("list.json", b"[1]")
    assert read_json(path) == [1]
    gcs.requests.clear()
    assert read_json(path) == [1]
    assert gcs.requests["read"] == 0
    gcs.put("list.json", b"[2]")
    assert read_json(path) == [2]


def test_a_header_is_read_without_the_rest(gcs):
    data = bytes(range(256)) * 4096
    gcs.put("large", data)
    gcs.requests.clear()
    with open_object(gcs.url("large"), len(data)) as file:
        assert file.read(100) == data[:100] and file.seek(0) == 0
        assert file.read(1000) == data[:1000]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
    assert gcs.requests["read"] == 2
