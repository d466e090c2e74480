"""The lock on a workdir in a bucket."""

import contextlib
import json
import threading
import time

import pytest
from helpers.buckets import DROPPED, LOST

from multigrain_jax import bucket_lock, buckets
from multigrain_jax.bucket_lock import BucketLock, LockLostError
from multigrain_jax.buckets import retry
from multigrain_jax.errors import InputError

BOTH = pytest.mark.parametrize("kind", ["gcs", "s3"])


@pytest.fixture
def kind():
    return "gcs"


@pytest.fixture
def bucket(request, kind, monkeypatch):
    monkeypatch.setattr(bucket_lock, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(bucket_lock, "_LOOK_S", 0.02)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    yield request.getfixturevalue(kind)
    buckets.disconnect()


@pytest.fixture
def workdir(bucket):
    return bucket.url("runs/a")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(bucket_lock, "STALE_S", 0.3)


def killed(lock: BucketLock) -> BucketLock:
    """A lock whose holder is gone without a word."""
    lock._ended.set()
    assert lock._thread is not None
    lock._thread.join()
    return lock


def acquired(workdir: str, copy: str) -> BucketLock:
    lock = BucketLock(workdir, copy=copy)
    lock.acquire()
    return lock


@BOTH
def test_a_second_run_is_refused_and_told_who_has_it(workdir, capsys):
    first = acquired(workdir, "a")
    started = time.monotonic()
    with pytest.raises(
        InputError, match=rf"{workdir} is in use by process \d+ on .*20"
    ):
        BucketLock(workdir, copy="b").acquire()
    assert time.monotonic() - started < bucket_lock.STALE_S / 10
    assert "is watched for up to 60 s" in capsys.readouterr().out
    first.release()
    assert list(buckets.list_objects(workdir)) == []
    acquired(workdir, "b").release()


@BOTH
def test_a_silent_one_is_taken_over(workdir, impatient, capsys):
    old = killed(acquired(workdir, "a"))
    new = acquired(workdir, "b")
    assert "taken over from process" in capsys.readouterr().out
    assert old.is_own()  # it knows nothing yet
    with pytest.raises(LockLostError, match=r"now in use by process \d+ on"):
        old.require(at_once=True)
    assert not old.is_own()
    assert "process" in old.holder()
    old.release()
    new.require(at_once=True)
    new.release()


def test_whoever_was_silent_asks_before_it_writes(workdir, monkeypatch, impatient):
    old = killed(acquired(workdir, "a"))
    old.require()
    new = acquired(workdir, "b")
    with pytest.raises(LockLostError):
        old.require()
    new.release()


def test_that_of_the_same_working_copy_is_taken_over_at_once(workdir):
    killed(acquired(workdir, "a"))
    started = time.monotonic()
    acquired(workdir, "a").release()
    assert time.monotonic() - started < bucket_lock.STALE_S / 10


def test_that_of_a_copied_machine_is_watched(workdir, monkeypatch):
    first = acquired(workdir, "a")
    monkeypatch.setattr(bucket_lock.socket, "gethostname", lambda: "its-clone")
    with pytest.raises(InputError, match="is in use by process"):
        BucketLock(workdir, copy="a").acquire()
    first.release()


def test_of_two_that_take_over_one_has_it(workdir, impatient):
    killed(acquired(workdir, "a"))
    had = []

    def take(copy: str) -> None:
        with contextlib.suppress(InputError):
            had.append(acquired(workdir, copy))

    threads = [threading.Thread(target=take, args=(copy,)) for copy in "bcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(had) == 1
    had[0].release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"process": "\\u001b[2J"}'])
def test_any_content_is_taken_over(bucket, impatient, capsys, content):
    bucket.put("runs/a/.lock", content)
    acquired(bucket.url("runs/a"), "a").release()
    assert "\x1b" not in capsys.readouterr().out


@BOTH
def test_one_that_somebody_removes_is_made_anew(bucket, workdir, capsys):
    lock = killed(acquired(workdir, "a"))
    buckets.delete(bucket.url("runs/a/.lock"))
    lock.require(at_once=True)
    assert "was removed under this run" in capsys.readouterr().out
    assert json.loads(bucket.data("runs/a/.lock"))["copy"] == "a"
    lock.release()


@pytest.mark.parametrize("how", [DROPPED, LOST])
def test_an_answer_that_is_lost_loses_no_lock(gcs, monkeypatch, how):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    gcs.faults.order(how, next_n=2, kinds=["write"])
    lock = acquired(gcs.url("run"), "a")
    for _ in range(3):
        gcs.faults.order(how, next_n=2, kinds=["write"])
        lock.require(at_once=True)
    assert lock.is_own()
    gcs.faults.clear()
    lock.release()
    buckets.disconnect()


def test_an_answer_that_never_comes_loses_no_lock_either(gcs, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    lock = killed(acquired(gcs.url("run"), "a"))
    monkeypatch.setattr(retry, "PATIENCE_S", 0.0)
    gcs.faults.order(LOST, next_n=1, kinds=["write"])
    with pytest.raises(TimeoutError):
        lock.renew()
    for _ in range(2):
        lock.require(at_once=True)
    assert lock.is_own()
    lock.release()
    assert gcs.names() == []
    buckets.disconnect()


def test_while_the_bucket_does_not_answer_nothing_is_lost(gcs, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    lock = killed(acquired(gcs.url("run"), "a"))
    gcs.faults.order("busy", every=1)
    with pytest.raises(TimeoutError):
        lock.require(at_once=True)
    assert lock.is_own()
    gcs.faults.clear()
    lock.require(at_once=True)
    lock.release()
    buckets.disconnect()
