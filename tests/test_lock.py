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
        named = f"process {holder.pid} on {socket.gethostname()}"
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
