"""What there is to say of photos that were read, kept in notes.txt."""

import errno

import numpy as np
import pytest
from helpers.photos import encode, noise_photo, plain_photo
from helpers.sources import open_photos

from multigrain_jax import growing_file
from multigrain_jax.data.notes import NOTES_FILE, PRINTED, NoteLog, read_notes
from multigrain_jax.data.reading import read_noted
from multigrain_jax.growing_file import close_lists


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos" / "a"
    root.mkdir(parents=True)
    for number in range(3):
        whole = encode(noise_photo(number), "JPEG")
        data = whole if number == 1 else whole[:-2]
        (root / f"{number}.jpg").write_bytes(data)
    (root / "3.png").write_bytes(b"no image")
    (root / "4.mov").touch()
    return root.parent


def test_notes_are_kept_and_said_once(photos, tmp_path, capsys):
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    source = open_photos(photos)
    over = f"{photos}: passed over 1 .mov: videos: save pictures of them"
    assert source.remarks == (over,)
    log = NoteLog(source, workdir=workdir)
    assert read_notes(workdir) == [over]
    log.record(np.array([0, 1, -1]))
    log.record(np.array([0, 2, 3]))
    lines = [f"{photos}/a/{n}.jpg: read, end missing" for n in (0, 2)]
    assert read_notes(workdir) == [over, *lines]
    printed = capsys.readouterr().out
    assert printed.splitlines() == [over, *(f"noted {line}" for line in lines)]
    # The next run knows them; it looks at the folder anew.
    NoteLog(source, workdir=workdir).record(np.array([0, 2]))
    assert read_notes(workdir) == [over, *lines] and capsys.readouterr().out == ""
    (photos / "a" / "5.mov").touch()
    NoteLog(open_photos(photos), workdir=workdir)
    assert read_notes(workdir) == [over.replace("1 .mov", "2 .mov"), *lines]
    # What is no longer passed over is no longer said.
    for name in ("4.mov", "5.mov"):
        (photos / "a" / name).unlink()
    (photos / "a" / "6.svg").touch()
    NoteLog(open_photos(photos), workdir=workdir)
    assert [line for line in read_notes(workdir) if ".mov" in line] == []


def test_two_places_do_not_forget_each_other(photos, tmp_path):
    workdir = tmp_path / "workdir"
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.jpg").write_bytes(plain_photo())
    (other / "1.xcf").touch()
    first, second = open_photos(photos), open_photos(other)
    for source in (first, second, first):
        NoteLog(source, workdir=workdir)
    assert set(read_notes(workdir)) == {*first.remarks, *second.remarks}


def test_many_notes_are_in_the_file_and_some_are_printed(tmp_path, capsys):
    root = tmp_path / "photos"
    root.mkdir()
    data = encode(noise_photo(0), "JPEG")[:-2]
    for number in range(PRINTED + 5):
        (root / f"{number}.jpg").write_bytes(data)
    NoteLog(open_photos(root), workdir=tmp_path).record(np.arange(PRINTED + 5))
    assert len(read_notes(tmp_path)) == PRINTED + 5
    assert len(capsys.readouterr().out.splitlines()) == PRINTED


def test_without_a_workdir_nothing_is_written(photos, capsys):
    NoteLog(open_photos(photos), workdir=None).record(np.array([0]))
    assert "end missing" in capsys.readouterr().out


@pytest.mark.parametrize("append", [False, True])
def test_notes_that_cannot_be_written_follow_when_they_can(
    photos, tmp_path, monkeypatch, capsys, append
):
    monkeypatch.setattr(growing_file, "RETRY_S", 0.01)
    if append:
        (photos / "a" / "4.mov").unlink()  # what is passed over comes first
    source, workdir = open_photos(photos), tmp_path / "workdir"
    workdir.mkdir()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(growing_file, "write_atomically", full)
        patched.setattr(growing_file.os, "write", full)
        log = NoteLog(source, workdir=workdir)
        for index in (0, 2):
            log.record(np.array([index]))
        # The next pass over the photos of this run forgets none of them.
        NoteLog(source, workdir=workdir).record(np.array([0]))
        lines = capsys.readouterr().out.splitlines()
        (warning,) = [line for line in lines if line.startswith("WARNING")]
        assert "notes.txt cannot be written: No space left on device (" in warning
        noted = [line[6:] for line in lines if line.startswith("noted ")]
        assert read_notes(workdir) == [*source.remarks, *noted]
    close_lists()
    text = (workdir / NOTES_FILE).read_text()
    assert text.splitlines() == [*source.remarks, *noted] and len(noted) == 2


def test_nothing_to_say_makes_no_file(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(plain_photo())
    source = open_photos(tmp_path / "photos")
    NoteLog(source, workdir=tmp_path).record(np.array([0]))
    assert not (tmp_path / "notes.txt").exists() and read_notes(tmp_path) == []


def test_names_of_any_bytes_stay_on_their_line(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "line\nbreak.jpg").write_bytes(encode(noise_photo(0), "JPEG")[:-2])
    source = open_photos(root)
    assert read_noted(source, 0).notes == ("read, end missing",)
    NoteLog(source, workdir=tmp_path).record(np.array([0]))
    (line,) = read_notes(tmp_path)
    assert "line\\nbreak.jpg" in line
