"""A workdir in a bucket, worked on in a folder: read at the start, mirrored, locked."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.buckets import BUSY

from multigrain_jax import bucket_lock, buckets, mirror, working_copy
from multigrain_jax.buckets import retry
from multigrain_jax.checkpoint import apart_folder
from multigrain_jax.errors import CheckpointNotSavedError, InputError, StoppedEarly
from multigrain_jax.files import settle
from multigrain_jax.lock import lock_workdir


@pytest.fixture(autouse=True)
def fast(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "PASS_S", 0.02)
    monkeypatch.setattr(mirror, "LAST_PAUSE_S", 0.02)
    monkeypatch.setattr(bucket_lock, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(bucket_lock, "_LOOK_S", 0.02)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.02)


def elsewhere(monkeypatch, tmp_path) -> None:
    """From now on this is another machine, without a working copy."""
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "elsewhere"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def save(folder: Path, step: int) -> None:
    write(folder, f"checkpoints/{step}/model/d/1", b"%d" % step)
    write(folder, f"checkpoints/{step}/meta/metadata", b"{}")


class Killed(BaseException):
    """The end of a process, of which nothing is told."""


def kill(monkeypatch) -> None:
    """Let what a context does at its end not happen."""
    monkeypatch.setattr(mirror.Mirror, "finish", lambda self: self._ended.set())
    monkeypatch.setattr(
        bucket_lock.BucketLock, "release", lambda self: self._ended.set()
    )


@pytest.mark.parametrize("kind", ["gcs", "s3"])
def test_a_run_goes_on_where_another_machine_left_it(
    kind, request, monkeypatch, tmp_path
):
    bucket = request.getfixturevalue(kind)
    url = bucket.url("runs/a")
    with working_copy.working_copy(url) as folder:
        assert folder.name == "a"
        write(folder, "metrics.jsonl", b"1\n")
        save(folder, 5)
        (folder / "empty").mkdir()
    left = contents(folder)
    elsewhere(monkeypatch, tmp_path)
    with working_copy.working_copy(url) as copy:
        assert copy != folder
        assert contents(copy) == left
        assert (copy / "empty").is_dir()
        (copy / "checkpoints/5/model/d/1").unlink()
    names = [found.path for found in buckets.list_objects(url)]
    assert buckets.join(url, "checkpoints/5/model/d/1") not in names
    buckets.disconnect()


def test_what_is_here_is_not_read_again(gcs):
    for expected in (0, 0, 1):
        with working_copy.working_copy(gcs.url("run")) as folder:
            write(folder, "file", b"1")
        if expected == 0:
            reads = gcs.requests["read"]
    gcs.requests.clear()
    with working_copy.working_copy(gcs.url("run")) as folder:
        assert contents(folder) == {"file": b"1"}
    assert gcs.requests["read"] == 0 == reads


def test_what_could_not_be_brought_there_stays_and_follows(gcs, monkeypatch, capsys):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.02)
    monkeypatch.setattr(mirror, "LAST_PATIENCE_S", 0.05)
    url = gcs.url("run")
    with working_copy.working_copy(url) as folder:
        save(folder, 5)
    with (
        pytest.raises(CheckpointNotSavedError, match="kept on this machine"),
        working_copy.working_copy(url) as folder,
    ):
        gcs.faults.order(BUSY, every=1)
        save(folder, 10)
        (folder / "checkpoints/5/model/d/1").unlink()
        raise StoppedEarly("after step 10")
    gcs.faults.clear()
    with working_copy.working_copy(url) as folder:
        assert gcs.data("run/checkpoints/10/meta/metadata") == b"{}"
        # A cleaner may have taken it away: what the bucket has is not lost by that.
        assert (folder / "checkpoints/5/model/d/1").read_bytes() == b"5"


@pytest.mark.parametrize("written", [1, 2, 3])
def test_what_was_brought_there_in_part_stays_and_follows(gcs, monkeypatch, written):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.0)
    monkeypatch.setattr(mirror, "LAST_PATIENCE_S", 0.0)
    monkeypatch.setattr(mirror, "PASS_S", 100.0)
    monkeypatch.setattr(mirror, "UPLOADS_AT_ONCE", 1)
    monkeypatch.setattr(bucket_lock, "HEARTBEAT_S", 100.0)
    url, real, left = gcs.url("run"), buckets.upload, [written]

    def upload(*arguments, **options):
        if not left[0]:
            raise TimeoutError(110, "no answer")
        left[0] -= 1
        return real(*arguments, **options)

    with (
        pytest.raises(CheckpointNotSavedError),
        working_copy.working_copy(url) as folder,
    ):
        write(folder, "metrics.jsonl", b"1\n")
        write(folder, "checkpoints/10/data/metadata", b"10")
        save(folder, 10)
        monkeypatch.setattr(buckets, "upload", upload)
    assert "run/checkpoints/10/meta/metadata" not in gcs.names()
    expected = contents(folder)
    monkeypatch.setattr(buckets, "upload", real)
    with working_copy.working_copy(url) as folder:
        assert contents(folder) == expected
        assert gcs.data("run/checkpoints/10/meta/metadata") == b"{}"


def test_what_another_run_has_written_counts(gcs, monkeypatch, tmp_path, capsys):
    url = gcs.url("run")
    with working_copy.working_copy(url) as folder:
        save(folder, 5)
    with monkeypatch.context() as patch:
        kill(patch)
        patch.setattr(mirror, "PASS_S", 100.0)
        with pytest.raises(Killed), working_copy.working_copy(url) as folder:
            save(folder, 10)
            raise Killed
    monkeypatch.setattr(bucket_lock, "STALE_S", 0.2)
    with monkeypatch.context() as patch:
        elsewhere(patch, tmp_path)
        with working_copy.working_copy(url) as other:
            save(other, 8)
    with working_copy.working_copy(url) as folder:
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
            "5",
            "8",
        ]
    assert "2 files that an earlier run has left" in capsys.readouterr().out


def test_checkpoints_that_are_not_whole_are_not_taken(gcs):
    save_to = gcs.url("run/checkpoints")
    for name in ("5/meta/metadata", "5/model/d/1", "10/model/d/1", "10/data/metadata"):
        buckets.write_bytes(buckets.join(save_to, name), b"{}")
    with working_copy.working_copy(gcs.url("run")) as folder:
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["5"]
    assert gcs.names("run/checkpoints/10") == []


def test_what_is_no_runs_stays_and_leads_nowhere(gcs, tmp_path, capsys):
    outside = tmp_path / "outside"
    names = [f"run/{outside}", "run/thumbnails/1.jpg", r"run/a\x5cx41"]
    for name in names:
        gcs.put(name, b"1")
    with working_copy.working_copy(gcs.url("run")) as folder:
        write(folder, "file", b"1")
    assert not outside.exists()
    assert contents(folder) == {"file": b"1"}
    assert gcs.names() == sorted([*names, "run/file"])
    assert f"3 objects that are no run's, such as {outside}" in capsys.readouterr().out


def test_a_first_run_that_brought_nothing_there_is_kept(gcs, monkeypatch):
    with monkeypatch.context() as patch:
        kill(patch)
        patch.setattr(mirror, "PASS_S", 100.0)
        with pytest.raises(Killed), working_copy.working_copy(gcs.url("run")) as folder:
            save(folder, 10)
            raise Killed
    assert gcs.names() == ["run/.lock"]
    with working_copy.working_copy(gcs.url("run")) as folder:
        assert (folder / "checkpoints/10/model/d/1").read_bytes() == b"10"
        assert gcs.data("run/checkpoints/10/meta/metadata") == b"{}"


def test_on_one_machine_a_second_run_is_refused_at_once(gcs, capsys):
    url = gcs.url("run")
    with (
        working_copy.working_copy(url),
        pytest.raises(InputError, match="in use by process"),
        working_copy.working_copy(url),
    ):
        pass


def test_what_only_reads_takes_no_lock(gcs):
    url = gcs.url("run")
    gcs.put("run/file", b"1")
    with working_copy.working_copy(url, writes=False) as folder:
        write(folder, "other", b"1")
        assert contents(folder)["file"] == b"1"
    assert gcs.names() == ["run/file"]


def test_a_run_whose_lock_is_taken_saves_apart_and_leaves(
    gcs, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(bucket_lock, "STALE_S", 0.2)
    url, name = gcs.url("run"), apart_folder()
    with (
        pytest.raises(StoppedEarly, match=r"^taken; gs://.*process 1 on other"),
        working_copy.working_copy(url) as folder,
        lock_workdir(folder) as lock,
    ):
        write(folder, "metrics.jsonl", b"1\n")
        assert lock.is_own()
        gcs.put("run/.lock", b'{"process": 1, "host": "other", "since": "now"}')
        while lock.is_own():
            pass
        assert lock.holder() == "process 1 on other since now"
        gcs.put("run/metrics.jsonl", b"of the other run")
        write(folder, "metrics.jsonl", b"2\n")
        write(folder, f"{name}/5/meta/metadata", b"{}")
        raise StoppedEarly("taken")
    assert gcs.data("run/metrics.jsonl") == b"of the other run"
    assert gcs.names("run/checkpoints") == [f"run/{name}/5/meta/metadata"]
    assert b"other" in gcs.data("run/.lock")


def test_a_run_that_ends_without_its_lock_says_so(gcs, monkeypatch):
    monkeypatch.setattr(mirror, "PASS_S", 100.0)
    with (
        pytest.raises(StoppedEarly, match=r"^gs://.*now in use by another"),
        working_copy.working_copy(gcs.url("run")) as folder,
    ):
        gcs.put("run/.lock", b"{}")
        write(folder, "file", b"1")
    assert gcs.names() == ["run/.lock"]


def test_an_error_is_passed_on_and_what_was_written_is_kept(gcs):
    with (
        pytest.raises(ZeroDivisionError),
        working_copy.working_copy(gcs.url("run")) as folder,
    ):
        write(folder, "file", b"1")
        raise ZeroDivisionError
    assert gcs.names() == ["run/file"]


def test_two_hosts_write_their_own(gcs):
    url = gcs.url("run")
    gcs.put("run/checkpoints/5/meta/metadata", b"{}")
    with (
        working_copy.working_copy(url) as first,
        working_copy.working_copy(url, host=1) as second,
    ):
        assert contents(second) == contents(first)
        for folder in (first, second):
            write(folder, "metrics.jsonl", folder.as_posix().encode())
            write(folder, "hosts/1/skipped.txt", folder.as_posix().encode())
    assert gcs.data("run/metrics.jsonl") == first.as_posix().encode()
    assert gcs.data("run/hosts/1/skipped.txt") == second.as_posix().encode()


def test_settling_waits_for_the_bucket(gcs, monkeypatch):
    monkeypatch.setattr(mirror, "PASS_S", 100.0)
    with working_copy.working_copy(gcs.url("run")) as folder:
        write(folder, "descriptors/descriptors.json", b"{}")
        assert gcs.names("run/descriptors") == []
        settle(folder / "descriptors")
        assert gcs.data("run/descriptors/descriptors.json") == b"{}"


def test_a_bucket_is_no_workdir(gcs):
    with (
        pytest.raises(InputError, match=r"the bucket gs://.* itself"),
        working_copy.working_copy(gcs.url()),
    ):
        pass


def test_what_the_disk_cannot_hold_is_not_begun(gcs, monkeypatch):
    gcs.put("run/file", b"1" * 1000)
    full = SimpleNamespace(free=999)
    monkeypatch.setattr(working_copy.shutil, "disk_usage", lambda path: full)
    with (
        pytest.raises(InputError, match=r"0.0 GB free; make room.*MULTIGRAIN"),
        working_copy.working_copy(gcs.url("run")),
    ):
        pass
    assert gcs.names() == ["run/file"]


def test_a_bucket_that_is_not_there_is_an_error(gcs):
    with (
        pytest.raises(InputError, match="there is no bucket"),
        working_copy.working_copy("gs://no-such-bucket/run"),
    ):
        pass
