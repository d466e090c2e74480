"""A copy of a folder of a bucket is whole, of one moment, and shown as the address."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.buckets import BUSY, CUT

from multigrain_jax import bucket_copies, buckets
from multigrain_jax.bucket_copies import CopiedPath, copy_of
from multigrain_jax.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "PAUSE_S", 0.0)


def everything(found):
    return found, []


def copied(url, is_whole=lambda _: True):
    return copy_of(url, everything, is_whole=is_whole)


def content(folder: Path) -> dict[str, bytes]:
    # Not by the path's own way, which is what is tested.
    plain = Path(os.fspath(folder))
    files = (path for path in plain.rglob("*") if path.is_file())
    return {p.relative_to(plain).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("scheme", ["gcs", "s3"])
def test_only_what_has_changed_is_fetched_again(scheme, request, capsys):
    bucket = request.getfixturevalue(scheme)
    bucket.put("run/a/1", b"one")
    bucket.put("run/2", b"two")
    first = copied(bucket.url("run"))
    assert content(first) == {"a/1": b"one", "2": b"two"}
    said = capsys.readouterr().out
    assert said.startswith(f"{bucket.url('run')}: 2 of 2 files, 0.0 MB, are copied to")
    assert copied(bucket.url("run")) == first
    assert not capsys.readouterr().out
    bucket.put("run/2", b"TWO")
    bucket.put("run/3", b"three")
    second = copied(bucket.url("run"))
    assert content(second) == {"a/1": b"one", "2": b"TWO", "3": b"three"}
    assert ": 2 of 3 files" in capsys.readouterr().out
    assert content(first) == {"a/1": b"one", "2": b"two"}  # whoever reads it goes on
    bucket.delete("run/3")
    assert content(copied(bucket.url("run"))) == {"a/1": b"one", "2": b"TWO"}
    assert not capsys.readouterr().out


def test_it_is_shown_as_the_address_and_opened_as_the_file(gcs, tmp_path):
    gcs.put("run/a/1", b"one")
    folder = copied(gcs.url("run"))
    file = folder / "a" / "1"
    assert f"{file}" == str(file) == gcs.url("run/a/1")
    assert os.fspath(file).startswith(str(tmp_path)) and os.path.isfile(file)
    assert file.read_bytes() == b"one" == Path(file).read_bytes()
    assert list(folder.iterdir()) == [folder / "a"] == list(folder.glob("*"))
    assert [str(path) for path in folder.glob("*/1")] == [str(file)]
    assert isinstance(file.parent.absolute(), CopiedPath)
    with pytest.raises(FileNotFoundError, match=gcs.url("run/nothing")):
        (folder / "nothing").stat()


def test_a_folder_that_changes_as_it_is_read_is_read_again(gcs, monkeypatch):
    gcs.put("run/1", b"1")
    gcs.put("run/2", b"1")
    changes, download = [b"2", b"3"], buckets.download

    def download_and_change(path, local, **options):
        download(path, local, **options)
        if changes and path.endswith("/1"):
            value = changes.pop()
            gcs.put("run/2", value)
            gcs.put("run/1", value)

    monkeypatch.setattr(buckets, "download", download_and_change)
    assert content(copied(gcs.url("run"))) == {"1": b"2", "2": b"2"}
    changes.extend([b"4"] * 20)
    gcs.put("run/1", b"5")
    with pytest.raises(InputError, match=r"gs://.*/run: somebody writes there"):
        copied(gcs.url("run"))


@pytest.mark.parametrize("scheme", ["gcs", "s3"])
def test_what_was_replaced_since_it_was_listed_is_not_taken(
    scheme, request, monkeypatch
):
    bucket = request.getfixturevalue(scheme)
    bucket.put("run/1", b"a")
    real, changes = bucket_copies._make, [b"b", b"a"]

    def make(*arguments):
        if changes:
            bucket.put("run/1", changes.pop(0))
        real(*arguments)

    monkeypatch.setattr(bucket_copies, "_make", make)
    # As it was listed first, and may be known by the same version again.
    assert content(copied(bucket.url("run"))) == {"1": b"a"}


def test_names_that_no_file_has_lead_nowhere(gcs, tmp_path):
    outside = tmp_path / "outside"
    gcs.put(f"run/{outside}", b"1")
    gcs.put("run/1", b"1")
    assert content(copied(gcs.url("run"))) == {"1": b"1"}
    assert not outside.exists()


def test_what_does_not_belong_together_is_waited_for(gcs):
    gcs.put("run/1", b"1")
    looks = []

    def is_whole(folder):
        looks.append(content(folder))
        if len(looks) == 1:
            gcs.put("run/2", b"2")
        return len(looks) > 1

    assert content(copied(gcs.url("run"), is_whole=is_whole)) == {"1": b"1", "2": b"2"}
    # Where nobody writes, it is as it is: whoever reads it says what is wrong.
    assert content(copied(gcs.url("run"), is_whole=lambda _: False))


def test_what_was_killed_half_way_and_faults_leave_no_half_copy(gcs, monkeypatch):
    for number in range(6):
        gcs.put(f"run/{number}", bytes([number]) * 100)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("x")))
        with pytest.raises(OSError, match="x"):
            copied(gcs.url("run"))
    monkeypatch.setattr("multigrain_jax.buckets.retry.FIRST_PAUSE_S", 0.01)
    for how in (BUSY, CUT):
        gcs.faults.order(how, every=3)
        assert len(content(copied(gcs.url("run")))) == 6


def test_two_runs_share_one_copy(gcs, capsys):
    for number in range(5):
        gcs.put(f"run/{number}", b"x" * 50)
    both = threading.Barrier(2)

    def run(_):
        both.wait()
        return copied(gcs.url("run"))

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(run, range(2))
    assert one == other and len(content(one)) == 5
    assert gcs.requests["read"] == 5


def test_old_copies_go_that_nobody_has_asked_for(gcs):
    copies = []
    for number in range(4):
        gcs.put("run/1", bytes([number]))
        copies.append(Path(os.fspath(copied(gcs.url("run")))))
        os.utime(copies[-1], (1e9 + number, 1e9 + number))
    gcs.put("run/1", b"last")
    copies.append(Path(os.fspath(copied(gcs.url("run")))))
    assert [copy.is_dir() for copy in copies] == [False, False, False, True, True]
    assert len(list(copies[0].parent.glob("*.json"))) == 2
