"""Lets reads of photos fail, in every process that has this folder on its path.

FAILING_READS names the folder: files below it are away for a moment from the first read
on, with all errors of the system in turn; for ever if their names begin with `lasting`.
"""

import builtins
import errno
import io
import itertools
import os
import time

_AWAY_S = 0.3
_errors = itertools.cycle(sorted(errno.errorcode))
_open, _os_open = io.open, os.open
_since: list[float] = []


def _fail(path) -> None:
    folder = os.environ.get("FAILING_READS", "")
    if not folder or not isinstance(path, (str, os.PathLike)):
        return
    name = os.fspath(path)
    if not name.startswith(folder) or not os.path.isfile(name):
        return
    now = time.monotonic()
    _since[:] = _since or [now]
    lasting = os.path.basename(name).startswith("lasting")
    if lasting or now < _since[0] + _AWAY_S:
        number = errno.EIO if lasting else next(_errors)
        raise OSError(number, os.strerror(number), name)


def _failing_open(file, *arguments, **options):
    _fail(file)
    return _open(file, *arguments, **options)


def _failing_os_open(path, *arguments, **options):
    _fail(path)
    return _os_open(path, *arguments, **options)


builtins.open = io.open = _failing_open
os.open = _failing_os_open
