"""Files that a run appends to without ever waiting for the disk."""

import contextlib
import errno
import os
import shutil
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.files import MAX_TEXT_BYTES, read_small, write_atomically

# What waits in memory for room on the disk; more is dropped, and counted.
MAX_WAITING_BYTES = 64 << 20
# Between two tries, and between two lines about one file.
RETRY_S = 1.0
SECONDS_BETWEEN_WARNINGS = 60.0
# How long whoever lists something waits for the disk.
LIST_PATIENCE_S = 0.5
# How long `close` waits for storage that does not answer, or has no room.
CLOSE_PATIENCE_S = 10.0

# What a disk can have that is no fault of the program and may pass.
PASSING_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EROFS,
)


class _Piece(NamedTuple):
    """What is to be appended, or to take the place of all before it."""

    data: bytes
    is_whole: bool


class GrowingFile:
    """A file whose writer neither waits nor fails: a thread appends what comes.

    What cannot be written (the disk is full, the storage does not answer) waits in
    memory and follows, in its order, when there is room: the file never holds part of
    a piece. Of a fault one line a minute is printed.
    """

    def __init__(self, path: Path, *, anew: bool = False):
        """Remember the file; it is made, or opened to be appended to, by a thread.

        Args:
            path: the file, in an existing folder.
            anew: whether what the file holds is thrown away.
        """
        self._path = path
        # Where the last whole piece ends, once the file has been opened.
        self._end: int | None = 0 if anew else None
        self._pieces: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        # The last warning, and whether it is yet to be taken back.
        self._warned_at: float | None = None
        self._told = False
        self._failing = False
        self._closing = False
        # Guards all above; told of new pieces, and of pieces that are written.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        _files.add(self)

    def write(self, piece: bytes) -> None:
        """Append a piece, sooner or later; returns at once."""
        self._add(_Piece(piece, is_whole=False))

    def write_anew(self, whole: bytes) -> None:
        """Replace all that the file holds, in one move, sooner or later."""
        self._add(_Piece(whole, is_whole=True))

    def _add(self, piece: _Piece) -> None:
        with self._changed:
            if self._waiting_bytes + len(piece.data) > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._pieces.append(piece)
            self._waiting_bytes += len(piece.data)
            if self._thread is None:
                # A daemon: storage that hangs does not keep the program from ending.
                self._thread = threading.Thread(target=self._append_all, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = CLOSE_PATIENCE_S) -> bool:
        """Wait until all is written, or for a fault; whether all is written."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._pieces or self._failing, timeout=timeout_s
            )
            return not self._pieces

    def close(self) -> None:
        """Wait for what is left, within bounds; say what is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pieces, timeout=CLOSE_PATIENCE_S)
            lost = len(self._pieces) + self._dropped
            self._pieces.clear()
            self._waiting_bytes = 0
        if lost:
            print(
                f"WARNING: {self._path}: {lost} entries could not be written and are "
                f"lost ({free_space(self._path)})",
                flush=True,
            )

    def with_waiting(self, lines: list[str]) -> list[str]:
        """What the lines of the file will be, each once, when nothing waits any more.

        Args:
            lines: those that it has.
        """
        with self._changed:
            waiting = list(self._pieces)
        for piece in waiting:
            more = piece.data.decode().splitlines()
            lines = more if piece.is_whole else [*lines, *more]
        return list(dict.fromkeys(lines))

    def _append_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._closing)
                if not self._pieces:
                    return
                pieces = list(self._pieces)
            written, error = self._write_some(pieces)
            with self._changed:
                line = self._report(error, len(self._pieces) - written)
            if line:
                # Before anybody takes the file for written, and goes on or ends.
                print(line, flush=True)
            with self._changed:
                for _ in range(min(written, len(self._pieces))):
                    self._waiting_bytes -= len(self._pieces.popleft().data)
                self._failing = error is not None
                self._changed.notify_all()
            if error is not None:
                time.sleep(RETRY_S / 10 if self._closing else RETRY_S)

    def _write_some(self, pieces: list[_Piece]) -> tuple[int, OSError | None]:
        """Write the first pieces: how many, and what kept the others out."""
        if not pieces[0].is_whole:
            appended = takewhile(lambda piece: not piece.is_whole, pieces)
            return self._append([piece.data for piece in appended])
        try:
            with write_atomically(self._path) as file:
                file.write(pieces[0].data)
        except OSError as error:
            return 0, error
        self._end = len(pieces[0].data)
        return 1, None

    def _append(self, pieces: list[bytes]) -> tuple[int, OSError | None]:
        """Append whole pieces: how many, and what kept the others out."""
        done = 0
        try:
            with open(self._path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if self._end is None:
                    self._end = size
                if size > self._end:
                    # What an older file holds, or a fault left of a piece.
                    file.truncate(self._end)
                self._end = min(self._end, size)  # somebody may have cut it
                # In one call where that succeeds: pieces can be a few bytes long.
                for some in (pieces, *([piece] for piece in pieces)):
                    try:
                        data = b"".join(some)
                        _write_whole(file.fileno(), data)
                    except OSError:
                        file.truncate(self._end)
                        if some is pieces and len(pieces) > 1:
                            continue
                        raise
                    self._end += len(data)
                    done += len(some)
                    if done == len(pieces):
                        break
        except OSError as error:
            return done, error
        return done, None

    def _report(self, error: OSError | None, waiting: int) -> str | None:
        if error is None:
            if not self._told:
                return None
            self._told = False
            lost = f"{self._dropped} entries are lost" if self._dropped else "whole"
            return f"{self._path}: written again, {lost}"
        now = time.monotonic()
        recent = self._warned_at is not None and (
            now - self._warned_at < SECONDS_BETWEEN_WARNINGS
        )
        if recent:
            return None
        self._warned_at, self._told = now, True
        return (
            f"WARNING: {self._path} cannot be written: {error.strerror or error} "
            f"({free_space(self._path)}); {waiting} entries wait in memory"
        )


# All that may have pieces in memory.
_files: weakref.WeakSet[GrowingFile] = weakref.WeakSet()


# Those that several parts of a run append to, by their paths.
_lists: dict[Path, GrowingFile] = {}


def list_file(path: Path) -> GrowingFile:
    """The file of a path, for whoever of this process appends to it.

    Two files of one path would take each other's lines for remains of a fault.
    """
    return _lists.setdefault(path.absolute(), GrowingFile(path))


def append_lines(path: Path, lines: Iterable[str], *, anew: bool = False) -> None:
    """Append lines to a list, which a run can do without; they may follow later.

    Args:
        path: a text file, in UTF-8.
        lines: without their ends.
        anew: whether they take the place of all that the file holds.
    """
    file = list_file(path)
    text = "".join(f"{line}\n" for line in lines).encode()
    (file.write_anew if anew else file.write)(text)
    file.flush(LIST_PATIENCE_S)


def listed_lines(path: Path) -> list[str]:
    """The lines of a list, those that wait to be written among them.

    Raises:
        OSError: it cannot be read; a list that is missing has none.
    """
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        data = read_small(path, max_bytes=MAX_TEXT_BYTES)
        lines = data.decode(errors="replace").splitlines()
    file = _lists.get(path.absolute())
    return lines if file is None else file.with_waiting(lines)


def close_lists() -> None:
    """Wait for the lines that are not written yet, within bounds; say what is lost."""
    while _lists:
        _lists.popitem()[1].close()


def flush_all(timeout_s: float) -> bool:
    """Wait until all files have what was written, or a fault; whether they have.

    Args:
        timeout_s: how long to wait at most, for all of them together.
    """
    end = time.monotonic() + timeout_s
    return all([f.flush(max(0.0, end - time.monotonic())) for f in list(_files)])


def free_space(path: Path) -> str:
    """How much room there is where a file lies, in words."""
    there = (folder for folder in (path, *path.parents) if folder.is_dir())
    try:
        folder = next(there, path)
        return f"{shutil.disk_usage(folder).free >> 10} KiB free"
    except OSError:
        return "free space unknown"


def unwritten(path: Path, error: OSError) -> str:
    """The line on a file that a run can do without, and that cannot be written."""
    return (
        f"WARNING: {path} cannot be written: {error.strerror or error} "
        f"({free_space(path)}); the run goes on without it"
    )


@contextlib.contextmanager
def dispensable(path: Path) -> Generator[None]:
    """A context that writes what a run can do without: a fault becomes one line."""
    try:
        yield
    except OSError as error:
        print(unwritten(path, error), flush=True)


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
