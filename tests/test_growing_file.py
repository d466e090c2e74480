"""A file that grows keeps nobody waiting, and misses nothing once there is room."""

import errno
import os
import threading
import time

import pytest

from multigrain_jax import growing_file
from multigrain_jax.growing_file import GrowingFile, flush_all

PIECES = [b"first\n", b"second\n", b"third\n"]


class Disk:
    """Stands for `os.write`: fails with `error`, or hangs, until it is mended."""

    def __init__(self):
        self.error: int | None = None
        self.room = 0
        self.answers = threading.Event()
        self.answers.set()

    def write(self, descriptor, data):
        self.answers.wait()
        if self.error is None:
            return self._write(descriptor, data)
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        part = bytes(data)[: self.room]
        self.room -= len(part)
        return self._write(descriptor, part)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    disk._write = os.write
    monkeypatch.setattr(growing_file.os, "write", disk.write)
    monkeypatch.setattr(growing_file, "RETRY_S", 0.01)
    yield disk
    disk.error = None
    disk.answers.set()


def write_all(file, pieces=PIECES):
    for piece in pieces:
        file.write(piece)


def test_pieces_follow_what_is_there(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"older\n")
    file = GrowingFile(path)
    write_all(file)
    assert file.flush()
    assert path.read_bytes() == b"older\n" + b"".join(PIECES)
    file.write(b"more\n")
    file.close()
    assert path.read_bytes().endswith(b"third\nmore\n")


def test_a_file_begun_anew_forgets_what_is_there(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"much longer than what follows\n" * 10)
    file = GrowingFile(path, anew=True)
    write_all(file)
    file.close()
    assert path.read_bytes() == b"".join(PIECES)


@pytest.mark.parametrize("code", growing_file.PASSING_ERRORS)
@pytest.mark.parametrize("room", [0, 3, len(PIECES[0]), len(PIECES[0]) + 2])
def test_what_a_disk_keeps_out_follows_whole(tmp_path, disk, capsys, code, room):
    path = tmp_path / "rows"
    file = GrowingFile(path)
    file.write(b"sound\n")
    assert file.flush()
    disk.error, disk.room = code, room
    write_all(file)
    assert not file.flush()
    # Whole pieces alone, whatever part of one there was room for.
    assert path.read_bytes() in (b"sound\n", b"sound\n" + PIECES[0])
    disk.error = None
    file.close()
    assert path.read_bytes() == b"sound\n" + b"".join(PIECES)
    said = capsys.readouterr().out
    assert said.count("WARNING") == 1
    assert os.strerror(code) in said
    assert "written again, whole" in said


def test_a_disk_that_hangs_keeps_nobody_waiting(tmp_path, disk):
    disk.answers.clear()
    file = GrowingFile(tmp_path / "rows")
    before = time.monotonic()
    write_all(file, PIECES * 1000)
    assert not flush_all(0.05)
    assert time.monotonic() - before < 5
    disk.answers.set()
    assert flush_all(60)
    file.close()
    assert (tmp_path / "rows").read_bytes() == b"".join(PIECES * 1000)


def test_what_is_lost_is_counted(tmp_path, disk, capsys, monkeypatch):
    monkeypatch.setattr(growing_file, "CLOSE_PATIENCE_S", 0.05)
    monkeypatch.setattr(growing_file, "MAX_WAITING_BYTES", 20)
    disk.error = errno.ENOSPC
    file = GrowingFile(tmp_path / "rows")
    write_all(file, [b"0123456789"] * 5)
    file.close()
    assert "5 entries could not be written and are lost" in capsys.readouterr().out


def test_a_folder_that_comes_back_gets_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(growing_file, "RETRY_S", 0.01)
    folder = tmp_path / "mounted"
    file = GrowingFile(folder / "rows")
    write_all(file)
    assert not file.flush()
    folder.mkdir()
    file.close()
    assert (folder / "rows").read_bytes() == b"".join(PIECES)
