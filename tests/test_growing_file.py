"""A file that grows keeps nobody waiting, and misses nothing once there is room."""

import errno
import os
import threading
import time

import pytest

from multigrain_jax import growing_file
from multigrain_jax.growing_file import (
    GrowingFile,
    append_lines,
    close_lists,
    flush_all,
    listed_lines,
)

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


def test_a_disk_that_is_full_again_and_again_is_told_of_once_a_minute(
    tmp_path, disk, capsys
):
    file = GrowingFile(tmp_path / "rows")
    for _ in range(5):
        disk.error = errno.ENOSPC
        file.write(b"a row\n")
        assert not file.flush()
        disk.error = None
        while not file.flush():
            time.sleep(0.01)
    file.close()
    assert (tmp_path / "rows").read_bytes() == b"a row\n" * 5
    said = capsys.readouterr().out
    assert said.count("WARNING") == said.count("written again") == 1


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


def test_a_whole_new_content_takes_its_turn(tmp_path, disk):
    path = tmp_path / "rows"
    path.write_bytes(b"older\n")
    file = GrowingFile(path)
    disk.error = errno.ENOSPC
    file.write(b"first\n")
    file.write_anew(b"second\nthird\n")
    file.write(b"fourth\n")
    assert not file.flush()
    assert file.with_waiting(["older"]) == ["second", "third", "fourth"]
    disk.error = None
    file.close()
    assert path.read_bytes() == b"second\nthird\nfourth\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows"]


def test_a_file_that_somebody_cuts_holds_no_zeros(tmp_path, disk):
    path = tmp_path / "rows"
    file = GrowingFile(path)
    write_all(file)
    assert file.flush()
    path.write_bytes(b"cut\n")
    write_all(file)
    assert file.flush()
    disk.error, disk.room = errno.ENOSPC, 3
    file.write(b"after\n")
    assert not file.flush()
    assert path.read_bytes() == b"cut\n" + b"".join(PIECES)
    disk.error = None
    file.close()


def test_two_who_list_in_one_file_lose_no_line(tmp_path, disk):
    path = tmp_path / "list"
    for number in range(3):
        append_lines(path, [f"one {number}"])
        append_lines(tmp_path / "." / "list", [f"other {number}"])
    disk.error = errno.ENOSPC
    append_lines(path, ["last"])
    expected = [f"{who} {n}" for n in range(3) for who in ("one", "other")]
    assert path.read_text().splitlines() == expected
    assert listed_lines(path) == [*expected, "last"]
    disk.error = None
    close_lists()
    assert path.read_text().splitlines() == [*expected, "last"]
    # Another run of the same process goes on.
    append_lines(path, ["anew"])
    close_lists()
    assert listed_lines(path) == [*expected, "last", "anew"]
