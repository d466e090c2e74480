"""Files that appear whole or not at all, whatever becomes of their writer."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

# How the name of a file ends that is being written, or whose writer was killed.
PARTIAL_SUFFIX = ".partial"
# Of the name before it, in characters: a whole name has at most 255 bytes.
_KEPT_OF_NAME = 40
# What Python makes of bytes in names that are no UTF-8, and how text shows them.
_STRAY_BYTE = re.compile("[\udc80-\udcff]")
_ESCAPED = re.compile(r"\\x(5c|[89a-f][0-9a-f])")
_LOOKS_ESCAPED = re.compile(r"\\(x(?:5c|[89a-f][0-9a-f]))")
# What files of JSON and of text may have: a small file of lists takes 25 times itself.
MAX_JSON_BYTES = 16 << 20
MAX_TEXT_BYTES = 256 << 20
_OWN_PARTIAL = re.compile(r"\.[0-9a-f]{16}" + re.escape(PARTIAL_SUFFIX) + "$")


@contextlib.contextmanager
def write_atomically(path: Path) -> Generator[IO[bytes]]:
    """A binary file to write to, which replaces `path` in one move at the end.

    Whoever reads `path` finds the old file or the whole new one. An error within the
    context, or in the move, leaves the old file and nothing beside it. Several
    processes may write the same file at once: the last one's stays. The new file has
    the permissions of an ordinary new file.

    Args:
        path: a file, or a name for one, in an existing folder.

    Raises:
        OSError: the file cannot be written.
    """
    # A name of its own for each writer, and in the same folder: the same file system.
    name = f"{path.name[:_KEPT_OF_NAME]}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
    partial = path.with_name(name)
    try:
        with partial.open("xb") as file:
            yield file
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        _name_file(error, path, partial)
        raise


@contextlib.contextmanager
def write_durably(path: Path) -> Generator[IO[bytes]]:
    """`write_atomically`, and the new file outlives a power cut once this returns."""
    with write_atomically(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def append_durably(path: Path, data: bytes) -> None:
    """Append to a file; a power cut after this returns loses nothing.

    Raises:
        OSError: it cannot be written; part of the data may be there.
    """
    try:
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)
        raise


# Folders that are kept elsewhere too, and how to wait until that has happened.
_kept_elsewhere: dict[Path, Callable[[], None]] = {}


@contextlib.contextmanager
def settling(folder: Path, wait: Callable[[], None]) -> Generator[None]:
    """Within this context `settle` calls `wait` for what is in a folder."""
    _kept_elsewhere[folder] = wait
    try:
        yield
    finally:
        del _kept_elsewhere[folder]


def settle(path: Path) -> None:
    """Wait until what was written durably is where it is kept for good.

    On a disk it is. A folder that is mirrored is brought to its bucket, for its next
    state not to be found there beside an older one than the one before it.
    """
    for folder, wait in list(_kept_elsewhere.items()):
        if folder in (path, *path.parents):
            wait()


def read_small(path: Path, *, max_bytes: int) -> bytes:
    """The bytes of a file that has no reason to be large.

    Raises:
        OSError: it cannot be read, is larger, or is a pipe or a device.
    """
    require_content(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            data = file.read()
            size = len(data)  # which may have grown
            if size <= max_bytes:
                return data
    raise OSError(
        errno.EFBIG, f"{size} bytes, at most {max_bytes >> 20} MiB", str(path)
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_content(path: Path) -> None:
    """Refuse what is no file on a disk: opening a named pipe waits for ever.

    Raises:
        OSError: there is nothing of the name, or it is a pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails
        raise OSError(errno.EINVAL, "a pipe, a socket or a device", str(path))


def read_json(path: Path) -> Any:
    """What a file of JSON holds, behind a byte order mark or without one.

    Raises:
        OSError: it cannot be read, or is too large to be one that is read here.
        ValueError: it is no JSON, or no UTF-8.
    """
    data = read_small(path, max_bytes=MAX_JSON_BYTES)
    return parse_json(data.decode("utf-8-sig"))


def parse_json(text: str) -> Any:
    """What a text of JSON holds; ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers have left in a folder that nobody writes to now.

    Files of others that end alike stay.
    """
    for path in folder.glob(f"*{PARTIAL_SUFFIX}"):
        if _OWN_PARTIAL.search(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def escape_name(name: str) -> str:
    r"""A file's name as text that UTF-8 can hold; `unescape_name` is the inverse.

    A byte that is no UTF-8 becomes `\xNN`, in lower case. For nothing else to look so,
    the backslash of what does becomes `\x5c`; all other names stay as they are.
    """
    if "\\x" in name:
        name = _LOOKS_ESCAPED.sub(r"\\x5c\1", name)
    if name.isascii():
        return name
    return _STRAY_BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)


def unescape_name(text: str) -> str:
    """The name of a file as Python has it, from what `escape_name` made of it."""
    if "\\x" not in text:
        return text
    return _ESCAPED.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    value = int(found[1], 16)
    return "\\" if value == ord("\\") else chr(0xDC00 + value)


def _name_file(error: BaseException, path: Path, partial: Path) -> None:
    """Let an error of writing tell which file it is about, as the user knows it."""
    if not isinstance(error, OSError) or error.errno is None:
        return
    if error.filename in (None, str(partial)):
        error.filename = str(path)
        if error.filename2 is not None:
            del error.filename2


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, as `os.replace` alone does not."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows does not open folders
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            error.filename = str(folder)
            raise
    finally:
        os.close(descriptor)
