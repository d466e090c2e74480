"""What a mirror brings to a bucket, in which order, and through which faults."""

import os
import threading
import time

import pytest
from helpers.buckets import BUSY, CUT, DROPPED, LOST

from multigrain_jax import buckets, mirror
from multigrain_jax.bucket_lock import LockLostError
from multigrain_jax.buckets import retry
from multigrain_jax.errors import CheckpointNotSavedError
from multigrain_jax.mirror import Mirror


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(mirror, "PASS_S", 0.02)
    monkeypatch.setattr(mirror, "LAST_PAUSE_S", 0.02)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.02)
    yield
    buckets.disconnect()


class Guard:
    """Says whose the bucket is."""

    lost = False

    def require(self, *, at_once: bool = False) -> None:
        if self.lost:
            raise LockLostError("taken")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def make(gcs, folder, tmp_path):
    def make(**changes) -> Mirror:
        settings = {
            "known": {},
            "staging": tmp_path / "staged",
            "guard": None,
            "is_own": lambda name: True,
            "remember": lambda known: None,
        }
        return Mirror(folder, gcs.url("run"), **{**settings, **changes})

    return make


def write(folder, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def in_bucket(gcs) -> dict[str, bytes]:
    names = gcs.names("run/")
    return {name.removeprefix("run/"): gcs.data(name) for name in names}


def in_folder(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_changes_follows_and_what_does_not_costs_nothing(gcs, folder, make):
    mirrored = make()
    write(folder, "metrics.jsonl", b"1\n")
    write(folder, "plots/loss.png", b"png")
    mirrored.upload()
    assert in_bucket(gcs) == in_folder(folder)
    gcs.requests.clear()
    mirrored.upload()
    assert gcs.requests.total() == 0
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"2\n")
    (folder / "plots/loss.png").unlink()
    mirrored.upload()
    assert in_bucket(gcs) == {"metrics.jsonl": b"1\n2\n", "plots/.empty": b""}
    assert gcs.requests == {"write": 2, "delete": 1}
    write(folder, "plots/p.png", b"png")
    mirrored.upload()
    assert in_bucket(gcs) == in_folder(folder)


def order_of_writes(monkeypatch) -> list[str]:
    """The names that are written (+) and deleted (-), as it happens."""
    events = []
    for name, sign in (("upload", "+"), ("delete", "-")):
        real = getattr(buckets, name)

        def call(*arguments, real=real, sign=sign, **options):
            path = arguments[1] if sign == "+" else arguments[0]
            events.append(sign + path.rpartition("run/")[2])
            return real(*arguments, **options)

        monkeypatch.setattr(buckets, name, call)
    return events


def test_a_checkpoint_is_whole_last_and_gone_first(folder, make, monkeypatch):
    events, mirrored = order_of_writes(monkeypatch), make()
    for step in (5, 10):
        write(folder, f"checkpoints/{step}/meta/metadata", b"{}")
        write(folder, f"checkpoints/{step}/model/d/1", b"array")
        mirrored.upload()
    assert events[1::2] == [f"+checkpoints/{n}/meta/metadata" for n in (5, 10)]
    events.clear()
    for name in ("meta/metadata", "model/d/1"):
        (folder / "checkpoints" / "5" / name).unlink()
    os.removedirs(folder / "checkpoints/5/meta")
    os.removedirs(folder / "checkpoints/5/model/d")
    write(folder, "checkpoints/15/meta/metadata", b"{}")
    write(folder, "metrics.jsonl", b"row")
    mirrored.upload()
    assert events == [
        "+metrics.jsonl",
        "+checkpoints/15/meta/metadata",
        "-checkpoints/5/meta/metadata",
        "-checkpoints/5/model/d/1",
    ]


def test_a_checkpoint_that_is_deleted_meanwhile_is_uploaded_whole(
    gcs, folder, make, monkeypatch
):
    write(folder, "checkpoints/5/meta/metadata", b"{}")
    write(folder, "checkpoints/5/model/d/1", b"array")
    real = buckets.upload

    def upload(*arguments, **options):
        for path in (folder / "checkpoints/5").rglob("*"):
            if path.is_file():
                path.unlink()
        return real(*arguments, **options)

    monkeypatch.setattr(buckets, "upload", upload)
    make().upload()
    found = in_bucket(gcs)
    assert found["checkpoints/5/meta/metadata"] == b"{}"
    assert found["checkpoints/5/model/d/1"] == b"array"


def test_descriptors_are_never_ahead_of_their_index(gcs, folder, make):
    """A writer as fast as can be, and whoever reads the bucket meanwhile."""
    ended, mirrored = threading.Event(), make()

    def write_on() -> None:
        for number in range(1, 101):
            write(folder, f"descriptors/in_place{number % 3}", b"%d" % number)
            with (folder / "descriptors/index.csv").open("ab") as file:
                file.write(b"x")
            write(folder, "new", b"%d" % number)
            os.replace(folder / "new", folder / "descriptors/descriptors.json")
        ended.set()

    thread = threading.Thread(target=write_on)
    thread.start()
    while not ended.is_set():
        mirrored.upload()
        found = in_bucket(gcs)
        counted = int(found.get("descriptors/descriptors.json", b"0"))
        assert len(found.get("descriptors/index.csv", b"")) >= counted
    thread.join()
    mirrored.finish()
    assert in_bucket(gcs)["descriptors/descriptors.json"] == b"100"


def test_a_large_file_that_grows_a_little_waits_for_a_checkpoint(
    gcs, folder, make, monkeypatch
):
    monkeypatch.setattr(mirror, "LARGE_BYTES", 100)
    mirrored = make()
    write(folder, "sample_ids.jsonl", b"1" * 200)
    mirrored._pass(full=False)
    write(folder, "sample_ids.jsonl", b"1" * 210)
    mirrored._pass(full=False)
    assert len(gcs.data("run/sample_ids.jsonl")) == 200
    write(folder, "sample_ids.jsonl", b"1" * 240)
    mirrored._pass(full=False)
    assert len(gcs.data("run/sample_ids.jsonl")) == 240
    write(folder, "sample_ids.jsonl", b"1" * 241)
    write(folder, "checkpoints/5/meta/metadata", b"{}")
    mirrored._pass(full=False)
    assert len(gcs.data("run/sample_ids.jsonl")) == 241


@pytest.mark.parametrize("how", [BUSY, DROPPED, LOST, CUT])
def test_through_faults_nothing_is_lost(gcs, folder, make, how):
    mirrored = make()
    gcs.faults.order(how, every=3)
    mirrored.start()
    for number in range(20):
        write(folder, f"file{number % 4}", b"%d" % number)
        time.sleep(0.005)
    (folder / "file1").unlink()
    mirrored.finish()
    gcs.faults.clear()
    assert in_bucket(gcs) == in_folder(folder)


def test_a_bucket_that_is_away_for_a_while_is_told_of(
    gcs, folder, make, monkeypatch, capsys
):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.02)
    mirrored = make()
    gcs.faults.order(BUSY, every=1)
    write(folder, "file", b"1")
    mirrored.start()
    out = ""
    while "WARNING" not in out:
        out += capsys.readouterr().out
    write(folder, "file", b"2")
    gcs.faults.clear()
    mirrored.finish()
    out += capsys.readouterr().out
    assert out.count("cannot be written: [Errno 110] no answer of the storage") == 1
    assert out.endswith("gs://" + gcs.bucket + "/run: written again, whole\n")
    assert in_bucket(gcs) == {"file": b"2"}


def test_one_that_is_away_for_good_is_an_error_at_the_end(
    gcs, folder, make, monkeypatch
):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.02)
    monkeypatch.setattr(mirror, "LAST_PATIENCE_S", 0.1)
    gcs.faults.order(BUSY, every=1)
    write(folder, "file", b"1")
    with pytest.raises(CheckpointNotSavedError, match=r"not all files .* kept on this"):
        make().finish()
    gcs.faults.clear()


def test_a_bucket_that_was_removed_is_an_error_at_the_end(gcs, folder, make):
    mirrored = make()
    mirrored._url = "gs://no-such-bucket/run"
    write(folder, "file", b"1")
    mirrored.settle()
    with pytest.raises(CheckpointNotSavedError, match=r"there is no bucket.* kept on"):
        mirrored.finish()


def test_of_many_files_that_would_fail_few_are_tried(gcs, folder, make, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.0)
    for number in range(100):
        write(folder, str(number), b"1")
    gcs.faults.order(BUSY, every=1)
    with pytest.raises(TimeoutError):
        make().upload()
    assert gcs.requests.total() <= mirror.UPLOADS_AT_ONCE
    gcs.faults.clear()


def test_nothing_is_written_once_the_lock_is_lost(gcs, folder, make):
    guard = Guard()
    mirrored = make(guard=guard)
    write(folder, "file", b"1")
    mirrored.upload()
    guard.lost = True
    write(folder, "file", b"2")
    write(folder, "checkpoints.host-1/5/meta/metadata", b"{}")
    with pytest.raises(LockLostError):
        mirrored.finish()
    assert in_bucket(gcs) == {"file": b"1"}
    mirrored.keep_apart("checkpoints.host-1")
    mirrored.finish()
    assert in_bucket(gcs) == {
        "file": b"1",
        "checkpoints.host-1/5/meta/metadata": b"{}",
    }


def test_what_another_run_has_written_is_not_written_over(gcs, folder, make):
    guard = Guard()
    mirrored = make(guard=guard)
    write(folder, "file", b"1")
    mirrored.upload()
    gcs.put("run/file", b"of the other run")
    write(folder, "file", b"2")
    guard.require = lambda at_once=False: (
        guard.__class__.require(guard) or (setattr(guard, "lost", True))
    )
    with pytest.raises(LockLostError):
        mirrored.upload()
    assert in_bucket(gcs) == {"file": b"of the other run"}


def test_what_a_stranger_has_written_is_told_of(gcs, folder, make, capsys):
    mirrored = make(guard=Guard())
    write(folder, "file", b"1")
    write(folder, "gone", b"1")
    mirrored.upload()
    for name in ("run/file", "run/gone"):
        gcs.put(name, b"by hand")
    write(folder, "file", b"2")
    (folder / "gone").unlink()
    mirrored.upload()
    assert in_bucket(gcs) == {"file": b"2"}
    assert capsys.readouterr().out.count("was written by somebody else") == 2


def test_a_host_writes_its_own_records_alone(gcs, folder, make):
    write(folder, "metrics.jsonl", b"1")
    write(folder, "hosts/1/skipped.txt", b"1")
    make(is_own=lambda name: name.startswith("hosts/1/")).upload()
    assert in_bucket(gcs) == {"hosts/1/skipped.txt": b"1"}
