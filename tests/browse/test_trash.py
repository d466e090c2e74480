"""Files that go to the trash, and come back as they were."""

import errno
import os

import pytest

from multigrain_jax.browse import trash as module
from multigrain_jax.browse.trash import NotMovedError, Trash
from multigrain_jax.errors import InputError

NAMES = ("a.jpg", "sub/a.jpg", "caf\udce9 \n.jpg")


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo %d" % number)
        os.utime(path, ns=(number, 1000 + number))
    return tmp_path / "photos"


def contents(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def move(trash, path, **changes):
    found = os.lstat(path)
    known = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "digest": None}
    return trash.move(str(path), **{**known, **changes})


def test_all_comes_back_as_it_was(root, tmp_path):
    before = contents(root)
    trash = Trash(tmp_path / "trash")
    for name in NAMES:
        move(trash, root / name)
    assert contents(root) == {}
    (root / "sub").rmdir()
    # Another process reads the log.
    again = Trash(tmp_path / "trash")
    assert len(again.entries()) == 3
    restored, problems = again.restore()
    assert (len(restored), problems) == (3, [])
    assert contents(root) == before
    assert Trash(tmp_path / "trash").entries() == []
    assert [p.name for p in (tmp_path / "trash").iterdir()] == ["log.jsonl"]
    # A second time there is nothing to do, and numbers go on.
    assert again.restore() == ([], [])
    assert move(Trash(tmp_path / "trash"), root / "a.jpg").number == 4


@pytest.mark.parametrize(
    "known", [{"size": 3}, {"mtime_ns": 9}, {"digest": "0" * 64}], ids=str
)
def test_a_file_that_changed_stays(root, tmp_path, known):
    before = contents(root)
    trash = Trash(tmp_path / "trash")
    with pytest.raises(NotMovedError, match="has changed"):
        move(trash, root / "a.jpg", **known)
    assert contents(root) == before
    assert trash.entries() == []


def test_what_took_a_files_place_is_not_overwritten(root, tmp_path):
    trash = Trash(tmp_path / "trash")
    move(trash, root / "a.jpg")
    move(trash, root / "sub" / "a.jpg")
    (root / "a.jpg").write_bytes(b"new")
    restored, problems = trash.restore()
    assert [entry.path for entry in restored] == [str(root / "sub" / "a.jpg")]
    assert len(problems) == 1 and "taken its place" in problems[0]
    assert (root / "a.jpg").read_bytes() == b"new"
    (root / "a.jpg").unlink()
    assert Trash(tmp_path / "trash").restore()[1] == []
    assert (root / "a.jpg").read_bytes() == b"photo 0"


def test_a_move_that_was_broken_off_is_undone(root, tmp_path, monkeypatch):
    trash = Trash(tmp_path / "trash")

    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(module, "_take", kill)
    with pytest.raises(Killed):  # behind the line in the log, before the move
        move(trash, root / "a.jpg")
    monkeypatch.undo()
    with (tmp_path / "trash" / "log.jsonl").open("ab") as file:
        file.write(b'{"number": 2, "pa')  # and before the line was whole
    before = contents(root)
    again = Trash(tmp_path / "trash")
    move(again, root / "sub" / "a.jpg")
    assert Trash(tmp_path / "trash").restore()[1] == []
    assert contents(root) == before


def test_a_move_that_fails_leaves_the_file_and_no_entry(root, tmp_path, monkeypatch):
    before = contents(root)
    trash = Trash(tmp_path / "trash")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_take", full)
    with pytest.raises(OSError, match="No space"):
        move(trash, root / "a.jpg")
    assert contents(root) == before
    assert trash.entries() == Trash(tmp_path / "trash").entries() == []


def test_to_another_file_system_a_file_is_copied_and_compared(
    root, tmp_path, monkeypatch
):
    def refuse(*arguments, **more):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    before = contents(root)
    trash = Trash(tmp_path / "trash")
    move(trash, root / "a.jpg")
    assert not (root / "a.jpg").exists()
    assert trash.restore()[1] == []
    assert contents(root) == before
    monkeypatch.setattr(module.shutil, "copyfileobj", lambda read, write: None)
    with pytest.raises(NotMovedError, match="copy differs"):
        move(trash, root / "a.jpg")
    assert contents(root) == before


def test_a_file_that_left_the_trash_is_told(root, tmp_path):
    trash = Trash(tmp_path / "trash")
    entry = move(trash, root / "a.jpg")
    (tmp_path / "trash" / entry.kept).unlink()
    restored, problems = trash.restore()
    assert restored == [] and "not there any more" in problems[0]


@pytest.mark.parametrize("line", ["{}", "x", "[]", '{"number": 1, "kept": "../a"}'])
def test_a_log_that_is_none_is_refused(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        Trash(tmp_path)


def test_without_its_log_no_folder_is_used_again(root, tmp_path):
    move(Trash(tmp_path / "trash"), root / "a.jpg")
    (tmp_path / "trash" / "log.jsonl").unlink()
    assert move(Trash(tmp_path / "trash"), root / "sub" / "a.jpg").number == 2


@pytest.mark.parametrize("same_file_system", [True, False])
def test_what_an_editor_puts_in_a_files_place_meanwhile_stays(
    root, tmp_path, monkeypatch, same_file_system
):
    path = root / "a.jpg"

    def replace_it(*arguments):
        (tmp_path / "new").write_bytes(b"edited!")
        os.utime(tmp_path / "new", ns=(0, 1000))  # the same size and time
        os.replace(tmp_path / "new", path)

    trash = Trash(tmp_path / "trash")
    if same_file_system:
        log = module.append_durably

        def log_and_replace(*arguments):
            log(*arguments)
            if path.read_bytes() != b"edited!":
                replace_it()

        monkeypatch.setattr(module, "append_durably", log_and_replace)
    else:

        def refuse(*arguments):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        copy = module.shutil.copystat
        monkeypatch.setattr(os, "rename", refuse)
        monkeypatch.setattr(
            module.shutil,
            "copystat",
            lambda *both: (copy(*both), replace_it()),
        )
    with pytest.raises(NotMovedError, match="has changed"):
        move(trash, path)
    assert path.read_bytes() == b"edited!"
    assert trash.entries() == []


@pytest.mark.parametrize("is_link", [True, False])
def test_a_return_that_was_broken_off_halfway_is_finished(root, tmp_path, is_link):
    before = contents(root)
    entry = move(Trash(tmp_path / "trash"), root / "a.jpg")
    kept = tmp_path / "trash" / entry.kept
    (os.link if is_link else module.shutil.copy2)(kept, entry.path)
    restored, problems = Trash(tmp_path / "trash").restore()
    assert (len(restored), problems) == (1, [])
    assert contents(root) == before
    assert not kept.exists()


def test_a_file_that_is_moved_is_known_whatever_fails_behind_it(
    root, tmp_path, monkeypatch
):
    before = contents(root)

    def fail(folder):
        raise OSError(errno.EIO, "Input/output error")

    trash = Trash(tmp_path / "trash")
    monkeypatch.setattr(module, "sync_folder", fail)
    move(trash, root / "a.jpg")
    assert not (root / "a.jpg").exists()
    # The way back is told as failed, and finished the next time.
    assert "Input/output error" in trash.restore()[1][0]
    monkeypatch.undo()
    assert Trash(tmp_path / "trash").restore()[1] == []
    assert contents(root) == before


def test_a_copy_goes_where_its_file_cannot(root, tmp_path, monkeypatch):
    before = contents(root)

    def refuse(*arguments):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    unlink = os.unlink

    def keep_photos(path, **more):
        if str(path).startswith(str(root)):
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, **more)

    trash = Trash(tmp_path / "trash")
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "unlink", keep_photos)
    with pytest.raises(PermissionError):
        move(trash, root / "a.jpg")
    monkeypatch.undo()
    assert contents(root) == before
    assert not list((tmp_path / "trash").rglob("*.jpg"))
    assert trash.entries() == Trash(tmp_path / "trash").entries() == []


@pytest.mark.parametrize("step", ["rename", "unlink"])
def test_a_step_that_is_done_and_called_failed_loses_nothing(
    root, tmp_path, monkeypatch, step
):
    before = contents(root)
    whole = {"rename": os.rename, "unlink": os.unlink}[step]

    def refuse(*arguments):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def done_and_failed(path, *more):
        whole(path, *more)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    trash = Trash(tmp_path / "trash")
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, step, done_and_failed)
    move(trash, root / "a.jpg")
    monkeypatch.undo()
    assert not (root / "a.jpg").exists()
    assert Trash(tmp_path / "trash").restore()[1] == []
    assert contents(root) == before


def test_half_a_line_on_a_full_disk_spoils_no_other(root, tmp_path, monkeypatch):
    before = contents(root)
    trash = Trash(tmp_path / "trash")
    move(trash, root / "a.jpg")

    def write_half(path, data):
        with path.open("ab") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "append_durably", write_half)
        with pytest.raises(OSError, match="No space"):
            move(trash, root / "sub" / "a.jpg")
    move(trash, root / "sub" / "a.jpg")
    restored, problems = Trash(tmp_path / "trash").restore()
    assert (len(restored), problems) == (2, [])
    assert contents(root) == before
