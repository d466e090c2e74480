"""One run at a time, and a lock whose holder was killed."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.files import PARTIAL_SUFFIX
from multigrain_jax.lock import lock_workdir, wait_for_turn

HOLDER = """
import sys, time
from pathlib import Path
from multigrain_jax.lock import lock_workdir
with lock_workdir(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        named = rf"process {holder.pid} on {socket.gethostname()} since \d\d\d\d-"
        with pytest.raises(InputError, match=named), lock_workdir(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with lock_workdir(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
        with pytest.raises(InputError, match="in use"), lock_workdir(tmp_path):
            pass
    with lock_workdir(tmp_path):
        pass


def test_a_lock_file_that_somebody_removes_is_made_anew(tmp_path, capsys):
    with lock_workdir(tmp_path) as lock:
        assert lock.is_own()
        (tmp_path / ".lock").unlink()
        assert lock.is_own()
        assert "was removed" in capsys.readouterr().out
        with pytest.raises(InputError, match="in use"), lock_workdir(tmp_path):
            pass
        assert lock.is_own()


def test_a_lock_file_in_place_of_the_own_one_is_noticed(tmp_path):
    with lock_workdir(tmp_path) as first:
        (tmp_path / ".lock").unlink()
        with lock_workdir(tmp_path) as second:
            assert not first.is_own()
            assert f"process {os.getpid()} on" in first.holder()
            assert second.is_own()
    with lock_workdir(tmp_path):
        pass


def test_an_error_before_anything_is_written_leaves_nothing(tmp_path):
    for workdir in (tmp_path, tmp_path / "a" / "b"):
        with pytest.raises(KeyError), lock_workdir(workdir):
            raise KeyError
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "c").mkdir()
    with pytest.raises(KeyError), lock_workdir(tmp_path / "c"):
        (tmp_path / "c" / "results.json").write_text("{}")
        raise KeyError
    assert len(list((tmp_path / "c").iterdir())) == 2


def fill(path, what):
    if what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(path.parent / "nowhere" / "file")
    else:
        path.write_bytes(what)


@pytest.mark.parametrize("what", [b"", b"\xff\x00\x1b[31m", b"x" * 10_000])
def test_any_content_of_a_lock_file_is_taken_over(tmp_path, what):
    fill(tmp_path / ".lock", what)
    with lock_workdir(tmp_path):
        (tmp_path / ".lock").write_bytes(what)
        with pytest.raises(InputError) as raised, lock_workdir(tmp_path):
            pass
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_lock_file_that_is_none_is_one_line(tmp_path, what):
    fill(tmp_path / ".lock", what)
    refused = pytest.raises(InputError, match=r"\.lock: .* remove or mend it")
    with refused, lock_workdir(tmp_path):
        pass


def test_half_a_file_of_a_killed_run_is_removed(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / f"results.json.0123456789abcdef{PARTIAL_SUFFIX}").write_text("{")
    with lock_workdir(tmp_path):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", "results.json"}


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    half = tmp_path / f"results.json.0123456789abcdef{PARTIAL_SUFFIX}"
    half.write_text("{")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_workdir(tmp_path):
        assert "cannot be locked" in capsys.readouterr().out
        # Another run may be writing it.
        assert half.exists()


def test_without_locks_there_is_a_warning_and_no_waiting(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with wait_for_turn(tmp_path / ".lock", purpose="weights"):
        assert "cannot be locked (no locks available)" in capsys.readouterr().out
