"""Reading from a storage that fails for a moment: its faults are not the file's."""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from multigrain_jax.errors import CheckpointUnreadableError, InputError

Result = TypeVar("Result")

# How long a fault of the storage is waited out.
RETRY_S = 10.0
PAUSE_S = 0.25
# These say what is there and what is not; all others, that it cannot be known.
_OF_THE_FILES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# How TensorStore reports what the system has reported: at the end of its errors, or in
# the system's words before its settings.
_OS_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")
_SETTINGS = " [tensorstore_spec="
_WORDS = {os.strerror(code): code for code in errno.errorcode}
_BLOCK = 1 << 20


def storage_fault(error: Exception) -> int | None:
    """The number of the system's error behind an error, if the storage has failed.

    None for what says that a file is missing or is none, or what is wrong in it.
    """
    if isinstance(error, InputError):
        return None
    code = error.errno if isinstance(error, OSError) else _fault_in_words(str(error))
    return None if code in _OF_THE_FILES else code


def unreadable_below(folder: Path) -> int | None:
    """The system's error if any file below a folder cannot be read now, else None.

    A folder that is gone is such an error: whoever asks had found it.
    """
    if not os.path.lexists(folder):
        return errno.ENOENT
    errors: list[OSError] = []
    for place, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            try:
                _read_through(os.path.join(place, name))
            except OSError as error:
                errors.append(error)
    faults = [code for error in errors if (code := storage_fault(error)) is not None]
    return faults[0] if faults else None


def patiently(read: Callable[[], Result], place: Path) -> Result:
    """What `read` returns, which is tried again while the storage fails.

    Raises:
        CheckpointUnreadableError: it has failed for `RETRY_S` seconds.
        Exception: whatever else `read` raises.
    """
    return _try(read, place, storage_fault)


def patiently_confirmed(read: Callable[[], Result], folder: Path) -> Result:
    """`patiently`, for a reader that takes a failing storage for a lack of files.

    Its error is passed on only if all files of `folder` can be read, and it comes
    twice.
    """
    seen = []

    def fault(error: Exception) -> int | None:
        return storage_fault(error) or unreadable_below(folder)

    def read_twice() -> Result:
        try:
            return read()
        except Exception as error:
            if seen or fault(error) is not None:
                raise
            seen.append(error)
        time.sleep(PAUSE_S)
        return read()

    return _try(read_twice, folder, fault)


def _try(
    read: Callable[[], Result], place: Path, fault: Callable[[Exception], int | None]
) -> Result:
    end = None
    while True:
        try:
            return read()
        except Exception as error:
            code = fault(error)
            if code is None:
                raise
            name = f"{errno.errorcode.get(code, code)} ({os.strerror(code)})"
            if end is None:
                end = time.monotonic() + RETRY_S
                print(f"{place}: {name}; reading is tried again", flush=True)
            if time.monotonic() >= end:
                raise CheckpointUnreadableError(
                    f"{place} was expected to be readable, found {name} for "
                    f"{RETRY_S:g} s; nothing was changed: give the same command again "
                    "when the storage answers"
                ) from error
        time.sleep(PAUSE_S)


def _fault_in_words(text: str) -> int | None:
    """The system's error in a text of TensorStore."""
    number = _OS_ERROR.search(text)
    if number:
        return int(number[1])
    reason, settings, _ = text.partition(_SETTINGS)
    return _WORDS.get(reason.rpartition(": ")[2]) if settings else None


def _read_through(path: str) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        return  # a pipe would never end
    with open(path, "rb") as file:
        while file.read(_BLOCK):
            pass
