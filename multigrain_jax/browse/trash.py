"""Files that were moved away, with a log by which all of it is undone.

    trash/log.jsonl            a line before each move, and one after each return
    trash/00000001/NAME        the file

Nothing is deleted, and nothing is overwritten.
"""

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.errors import InputError
from multigrain_jax.files import (
    append_durably,
    escape_name,
    file_digest,
    sync_folder,
    unescape_name,
)

TRASH_FOLDER = "trash"
LOG_FILE = "log.jsonl"


class NotMovedError(OSError):
    """A file that stays where it is."""


class Entry(NamedTuple):
    """A file that was moved, or was about to be.

    Attributes:
        number: of the move.
        path: where it was.
        kept: where it is, below the trash.
        size: in bytes.
        mtime_ns: when it was written.
        digest: SHA-256.
    """

    number: int
    path: str
    kept: str
    size: int
    mtime_ns: int
    digest: str


class Trash:
    """The trash of a workdir."""

    def __init__(self, folder: Path):
        """Read the log.

        Args:
            folder: made when the first file is moved.

        Raises:
            InputError: a log that is none.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._entries, last = _read_log(folder / LOG_FILE)
        # Also where the log is gone, no folder is used again.
        taken = (int(p.name) for p in folder.glob("[0-9]*") if p.name.isdecimal())
        self._last = max(last, *taken, 0)

    def entries(self) -> list[Entry]:
        """What was moved and is not back, the first move first."""
        with self._lock:
            return list(self._entries.values())

    def move(self, path: str, *, size: int, mtime_ns: int, digest: str | None) -> Entry:
        """Move a file away that is as it was.

        Args:
            path: where it is.
            size: that it must have.
            mtime_ns: as well.
            digest: as well, where it is known.

        Raises:
            NotMovedError: it is another file; it stays.
        """
        with self._lock:
            found = os.lstat(path)
            if (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
                raise NotMovedError("it has changed since it was embedded")
            now = file_digest(Path(path))
            again = os.lstat(path)
            if digest not in (None, now) or _version(again) != _version(found):
                raise NotMovedError("it has changed since it was embedded")
            number = self._last + 1
            kept = f"{number:08d}/{os.path.basename(path)}"
            entry = Entry(number, path, kept, size, mtime_ns, now)
            (self._folder / f"{number:08d}").mkdir(parents=True)
            self._last = number
            # First the log: a move that it does not know could not be undone.
            self._log({**entry._asdict(), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
            try:
                _take(path, str(self._folder / kept), entry, _version(again))
            except OSError:
                self._log({"restored": number})
                raise
            self._entries[number] = entry
            return entry

    def restore(self) -> tuple[list[Entry], list[str]]:
        """Bring everything back, the last move first.

        Returns:
            What is back, and a line for each file that could not be brought back.
        """
        restored, problems = [], []
        with self._lock:
            for entry in sorted(self._entries.values(), reverse=True):
                kept = self._folder / entry.kept
                try:
                    if _is_back_beside(kept, entry):
                        # A move or a return was broken off behind its first half.
                        os.unlink(kept)
                    elif os.path.lexists(kept):
                        os.makedirs(os.path.dirname(entry.path), exist_ok=True)
                        _move(str(kept), entry.path, entry)
                    elif not _is_there(entry):
                        raise NotMovedError(f"{kept} is not there any more")
                except OSError as error:
                    reason = error.strerror or str(error)
                    problems.append(f"{escape_name(entry.path)}: {reason}")
                    continue
                self._log({"restored": entry.number})
                del self._entries[entry.number]
                restored.append(entry)
                with contextlib.suppress(OSError):
                    kept.parent.rmdir()
        return restored, problems

    def _log(self, line: dict[str, Any]) -> None:
        named = {
            key: escape_name(value) if isinstance(value, str) else value
            for key, value in line.items()
        }
        path = self._folder / LOG_FILE
        length = path.stat().st_size if path.exists() else 0
        try:
            append_durably(path, (json.dumps(named) + "\n").encode())
        except OSError:
            # Half a line, as a full disk leaves it, would spoil the next one.
            with contextlib.suppress(OSError):
                os.truncate(path, length)
            raise


def _take(source: str, target: str, entry: Entry, version: tuple[int, ...]) -> None:
    """Move a file into a new folder; what has taken its place meanwhile stays."""
    if _version(os.lstat(source)) != version:
        raise NotMovedError("it has changed since it was embedded")
    try:
        # One step: between two of them another file could come to be the one removed.
        os.rename(source, target)
        # From here on the file is moved, also where this cannot be done.
        with contextlib.suppress(OSError):
            sync_folder(Path(target).parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            # File systems of a network may call failed what they have done.
            if os.path.lexists(source) or not os.path.lexists(target):
                raise
            return
        _copy(source, target, entry)
        try:
            if _version(os.lstat(source)) != version:
                raise NotMovedError("it has changed since it was embedded") from error
            os.unlink(source)
        except OSError:
            # Of the two, one is left in any case.
            if os.path.lexists(source):
                os.unlink(target)
                raise


def _move(source: str, target: str, entry: Entry) -> None:
    """Bring a file back where nothing is; a copy is compared before it counts."""
    if os.path.lexists(target):
        raise NotMovedError("another file has taken its place")
    try:
        # A second name and then not the first: no other file is ever overwritten.
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise NotMovedError("another file has taken its place") from error
        _copy(source, target, entry)
    sync_folder(Path(target).parent)
    os.unlink(source)


def _copy(source: str, target: str, entry: Entry) -> None:
    """Copy a file to another file system, or to one without hard links."""
    with open(source, "rb") as read, open(target, "xb") as write:
        try:
            shutil.copyfileobj(read, write)
            write.flush()
            os.fsync(write.fileno())
            shutil.copystat(source, target)
            if file_digest(Path(target)) != entry.digest:
                raise NotMovedError("the copy differs from it")
            sync_folder(Path(target).parent)
        except BaseException:
            os.unlink(target)
            raise


def _is_back_beside(kept: Path, entry: Entry) -> bool:
    """Whether what the trash keeps is at its old place too."""
    if not os.path.lexists(kept) or not _is_there(entry):
        return False
    if os.path.samestat(os.lstat(kept), os.lstat(entry.path)):
        return True
    return file_digest(Path(entry.path)) == entry.digest == file_digest(kept)


def _is_there(entry: Entry) -> bool:
    """Whether a file never left, or is back already."""
    try:
        found = os.lstat(entry.path)
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_log(path: Path) -> tuple[dict[int, Entry], int]:
    entries: dict[int, Entry] = {}
    last = 0
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            # A line that was cut off while it was written, before its move began.
            os.truncate(path, len(whole))
    except FileNotFoundError:
        return entries, last
    except OSError as error:
        raise _broken(path, str(error.strerror)) from error
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            read = json.loads(line)
            if "restored" in read:
                entries.pop(read["restored"], None)
                continue
            read.pop("at")
            names = {key: unescape_name(read[key]) for key in ("path", "kept")}
            entry = Entry(**{**read, **names})
            if os.path.dirname(entry.kept) != f"{entry.number:08d}":
                raise ValueError(entry.kept)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _broken(path, f"line {number}: {error}") from error
        entries[entry.number] = entry
        last = max(last, entry.number)
    return entries, last


def _broken(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: the log of what was moved was expected ({reason}); restore it from a "
        "copy; the files themselves are in the folders beside it"
    )
