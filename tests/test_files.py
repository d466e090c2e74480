"""Files appear whole or not at all: at an error, a kill, and beside other writers."""

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from multigrain_jax.files import (
    PARTIAL_SUFFIX,
    escape_name,
    parse_json,
    read_json,
    read_small,
    remove_partial_files,
    unescape_name,
    write_atomically,
    write_durably,
)

WRITERS = [write_atomically, write_durably]
OLDER, NEWER = b"older", b"newer" * 100_000


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def path(tmp_path):
    """A file that is there already."""
    path = tmp_path / "results.json"
    path.write_bytes(OLDER)
    return path


@pytest.mark.parametrize("write", WRITERS)
def test_a_new_file_is_there_once_it_is_whole(tmp_path, write):
    with write(tmp_path / "new") as file:
        file.write(NEWER)
        file.flush()
        (partial,) = tmp_path.iterdir()
        assert partial.name.endswith(PARTIAL_SUFFIX)
    assert contents(tmp_path) == {"new": NEWER}


@pytest.mark.parametrize("write", WRITERS)
def test_readers_see_the_older_file_until_the_newer_is_whole(path, write):
    with path.open("rb") as reader:
        with write(path) as file:
            file.write(NEWER)
            file.flush()
            assert path.read_bytes() == OLDER
        assert path.read_bytes() == NEWER
        # Who had it open reads on.
        assert reader.read() == OLDER
    assert contents(path.parent) == {path.name: NEWER}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_what_there_was(path, write, error):
    for target in (path, path.with_name("new")):
        with pytest.raises(error, match="in the middle"), write(target) as file:
            file.write(NEWER)
            raise error("in the middle")
    assert contents(path.parent) == {path.name: OLDER}


@pytest.mark.parametrize(
    ("write", "call"),
    [
        (write_atomically, "replace"),
        (write_durably, "replace"),
        (write_durably, "fsync"),
    ],
)
def test_a_full_disk_at_the_end_leaves_what_there_was(path, monkeypatch, write, call):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"), write(path) as file:
            file.write(NEWER)
    assert contents(path.parent) == {path.name: OLDER}


@pytest.mark.parametrize("write", WRITERS)
def test_a_missing_folder_and_a_folder_of_that_name_are_errors(tmp_path, write):
    with pytest.raises(FileNotFoundError), write(tmp_path / "none" / "a"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"), write(tmp_path / "folder") as file:
        file.write(NEWER)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("write", WRITERS)
def test_permissions_are_those_of_an_ordinary_new_file(tmp_path, write, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "ordinary").write_bytes(b"")
        with write(tmp_path / "whole"):
            pass
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "whole")
    ]
    assert modes == [0o666 & ~mask] * 2


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "\udcff.jpg", ".hidden"])
def test_any_name_that_a_file_can_have(tmp_path, write, name):
    with write(tmp_path / name) as file:
        file.write(NEWER)
    assert contents(tmp_path) == {name: NEWER}


def test_durable_is_the_file_before_the_move_and_its_name_after(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = None if is_folder else os.fstat(descriptor).st_size
        calls.append("folder" if is_folder else size)
        fsync(descriptor)

    def moved(source, target):
        calls.append("move")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    with write_durably(path) as file:
        file.write(NEWER)
    # The size: what is still in a buffer is not synced.
    assert calls == [len(NEWER), "move", "folder"]
    calls.clear()
    with write_atomically(path) as file:
        file.write(NEWER)
    assert calls == ["move"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_does_not_sync_folders(path, monkeypatch, code):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    def write():
        with write_durably(path) as file:
            file.write(NEWER)

    monkeypatch.setattr(os, "fsync", refuse)
    if code == errno.EINVAL:
        write()
    else:  # a disk that breaks is told
        with pytest.raises(OSError, match=os.strerror(code)):
            write()
    assert contents(path.parent) == {path.name: NEWER}


def test_a_system_that_does_not_open_folders(path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    with write_durably(path) as file:
        file.write(NEWER)
    assert contents(path.parent) == {path.name: NEWER}


@pytest.mark.parametrize("write", WRITERS)
def test_of_two_writers_at_once_the_last_ones_file_stays(path, write):
    with write(path) as outer:
        outer.write(b"the outer one's")
        with write(path) as inner:
            inner.write(b"the inner one's")
        assert path.read_bytes() == b"the inner one's"
    assert contents(path.parent) == {path.name: b"the outer one's"}


WRITING = """
import sys
from pathlib import Path
from multigrain_jax.files import write_atomically
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    with write_atomically(Path(sys.argv[1])) as file:
        for _ in range(50):
            file.write(sys.argv[2].encode() * 1000)
"""


def test_many_writers_and_readers_never_meet_half_a_file(path):
    whole = {OLDER, *(letter * 50_000 for letter in (b"a", b"b", b"c"))}
    command = [sys.executable, "-c", WRITING, str(path)]
    writers = [
        subprocess.Popen(
            [*command, letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for letter in "abc"
    ]
    found, done = set(), threading.Event()

    def read():
        while not done.is_set():
            found.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            writer.communicate(b"\n")
            assert writer.returncode == 0
    finally:
        done.set()
        reader.join()
    assert len(found) > 1 and found <= whole
    assert contents(path.parent).keys() == {path.name}


KILLED = """
import os, signal, sys
from pathlib import Path
from multigrain_jax.files import write_durably
with write_durably(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_leaves_is_known_by_its_name(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = contents(path.parent)
    assert left.pop(path.name) == OLDER
    ((name, half),) = left.items()
    assert name.startswith(path.name) and name.endswith(PARTIAL_SUFFIX)
    assert half == b"half"
    stranger = f"holiday.jpg{PARTIAL_SUFFIX}"
    path.with_name(stranger).write_bytes(b"a download")
    (path.parent / f"folder.0123456789abcdef{PARTIAL_SUFFIX}").mkdir()
    remove_partial_files(path.parent)
    assert path.with_name(stranger).read_bytes() == b"a download"
    path.with_name(stranger).unlink()
    (path.parent / f"folder.0123456789abcdef{PARTIAL_SUFFIX}").rmdir()
    assert contents(path.parent) == {path.name: OLDER}
    remove_partial_files(Path(path.parent, "none"))


def test_any_name_is_escaped_into_utf8_and_back():
    rng = random.Random(0)
    parts = ["\\", "x", "5c", "f", "a0", "8", "\udcff", "\udc80", "é", "\n", "\\xff"]
    for _ in range(2000):
        name = "".join(rng.choices(parts, k=rng.randint(0, 7)))
        text = escape_name(name)
        assert (text.encode() and unescape_name(text) == name) or not name
    assert escape_name("\udcffé") == "\\xffé"
    assert escape_name("C:\\x\\é \\n") == "C:\\x\\é \\n"


SPARSE = 1 << 40


def test_a_file_that_has_no_reason_to_be_large_is_read_only_if_it_is_small(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert read_small(path, max_bytes=3) == b"abc"
    with pytest.raises(OSError, match="3 bytes, at most 0 MiB"):
        read_small(path, max_bytes=2)
    with path.open("wb") as file:
        file.truncate(SPARSE)  # which takes no room on the disk
    with pytest.raises(OSError, match=rf"{SPARSE} bytes, at most 1 MiB.*{path}"):
        read_small(path, max_bytes=1 << 20)
    with pytest.raises(OSError, match=f"{SPARSE} bytes, at most 16 MiB"):
        read_json(path)


def test_json_behind_a_byte_order_mark_is_read(path):
    path.write_text('{"a": "\ufeff"}', encoding="utf-8-sig")
    assert read_json(path) == {"a": "\ufeff"}


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "1" * 5000, "\ud800", "nul"]
)
def test_any_text_that_is_no_json_is_one_kind_of_error(tmp_path, text):
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "file").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError):
        read_json(tmp_path / "file")
