"""A storage that fails is waited out, and is never taken for damaged files."""

import errno
import os

import pytest
from helpers.checkpoints import save_small

from multigrain_jax.checkpoint import (
    DamagedCheckpointError,
    checkpoint_steps,
    load_checkpoint,
    load_optimizer_arrays,
    storage,
)
from multigrain_jax.checkpoint.loading import ocp
from multigrain_jax.checkpoint.storage import (
    patiently,
    patiently_confirmed,
    storage_fault,
    unreadable_below,
)
from multigrain_jax.errors import CheckpointUnreadableError, InputError

OF_THE_FILES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
FAULTS = sorted(set(errno.errorcode) - OF_THE_FILES)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0.001)
    monkeypatch.setattr(storage, "RETRY_S", 0.01)


class Failing:
    """Reads that fail so many times, and then return what they are called with."""

    def __init__(self, code, times=1_000_000):
        self.code, self.times, self.calls = code, times, 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.code, os.strerror(self.code))
        return arguments


@pytest.mark.parametrize("read", [patiently, patiently_confirmed])
def test_every_error_of_the_system_is_waited_out(tmp_path, capsys, read, monkeypatch):
    monkeypatch.setattr(storage, "RETRY_S", 60.0)
    for code in FAULTS:
        failing = Failing(code, times=3)
        assert read(failing, tmp_path) == () and failing.calls == 4
        said = capsys.readouterr().out
        assert said.startswith(f"{tmp_path}: {errno.errorcode[code]} (")
        assert said.count("\n") == 1


@pytest.mark.parametrize("read", [patiently, patiently_confirmed])
def test_a_lasting_error_ends_with_its_name(tmp_path, read):
    for code in FAULTS:
        with pytest.raises(CheckpointUnreadableError) as caught:
            read(Failing(code), tmp_path)
        said = str(caught.value)
        assert f"{tmp_path} was expected to be readable, found " in said
        assert f"{errno.errorcode[code]} ({os.strerror(code)})" in said
        assert "\n" not in said


@pytest.mark.parametrize(
    "item", ["JsonCheckpointHandler", "BasePyTreeCheckpointHandler"]
)
@pytest.mark.parametrize("code", [*FAULTS[::9], errno.EIO, errno.ESTALE])
def test_no_error_of_the_system_is_damage(tmp_path, monkeypatch, item, code):
    folder = save_small(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(getattr(ocp, item), "restore", Failing(code))
        with pytest.raises(CheckpointUnreadableError, match=errno.errorcode[code]):
            load_optimizer_arrays(load_checkpoint(folder))
        patched.setattr(os, "listdir", Failing(code))
        with pytest.raises(CheckpointUnreadableError, match=errno.errorcode[code]):
            checkpoint_steps(folder.parent)
    assert load_checkpoint(folder).step == 5


def test_what_tensorstore_says_of_the_system_is_understood(tmp_path):
    folder = save_small(tmp_path)
    (data,) = (folder / "model" / "d").iterdir()
    data.unlink()
    data.symlink_to(data.name)  # a true error of the system: it is a circle
    with pytest.raises(DamagedCheckpointError) as caught:
        load_checkpoint(folder)
    text = str(caught.value.__cause__)
    code = str(errno.ELOOP)
    assert f"[os_error_code='{code}']" in text
    for fault in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT):
        error = ValueError(text.replace(f"='{code}'", f"='{fault}'"))
        assert storage_fault(error) == fault
        # Of some files it gives the words alone.
        error = ValueError(f"Failed: {os.strerror(fault)} [tensorstore_spec='{{}}']")
        assert storage_fault(error) == fault


def test_what_is_missing_or_none_is_no_fault():
    for code in OF_THE_FILES:
        assert storage_fault(OSError(code, os.strerror(code))) is None
    for error in (OSError("no header"), ValueError(os.strerror(5)), InputError("x")):
        assert storage_fault(error) is None


def test_a_reader_that_hides_the_fault_is_not_believed(tmp_path, monkeypatch):
    """As where the existence of a file is asked for, and every error means no."""
    (tmp_path / "file").touch()

    def no_such_item():
        raise ValueError("no such item")

    with pytest.raises(ValueError, match="no such item"):
        patiently_confirmed(no_such_item, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "open", Failing(errno.ESTALE), raising=False)
        with pytest.raises(CheckpointUnreadableError, match="ESTALE"):
            patiently_confirmed(no_such_item, tmp_path)
    # Once is not enough: it may have been away for that moment.
    answers = iter([ValueError("no such item"), None])

    def one_failure():
        if error := next(answers):
            raise error
        return "read"

    assert patiently_confirmed(one_failure, tmp_path) == "read"


def test_a_folder_that_is_gone_is_a_fault_and_odd_files_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("none")
    assert unreadable_below(tmp_path) is None
    assert unreadable_below(tmp_path / "none") == errno.ENOENT
