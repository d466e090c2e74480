"""Lets reads of photos fail, in every process that has this folder on its path.

FAILING_READS names the folder; each file below it fails with another error of the
system, at its first reads or, where its name begins with `lasting`, at all of them.
"""

import builtins
import errno
import io
import os
from collections import Counter

_ERRORS = sorted(errno.errorcode)
_FAILED_READS = 2
_open, _os_open = io.open, os.open
_reads: Counter[str] = Counter()


def _fail(path) -> None:
    folder = os.environ.get("FAILING_READS", "")
    if not folder or not isinstance(path, (str, os.PathLike)):
        return
    name = os.fspath(path)
    if not name.startswith(folder) or not os.path.isfile(name):
        return
    _reads[name] += 1
    if os.path.basename(name).startswith("lasting"):
        number = errno.EIO
    elif _reads[name] <= _FAILED_READS:
        number = _ERRORS[sum(name.encode()) % len(_ERRORS)]
    else:
        return
    raise OSError(number, os.strerror(number), name)


def _failing_open(file, *arguments, **options):
    _fail(file)
    return _open(file, *arguments, **options)


def _failing_os_open(path, *arguments, **options):
    _fail(path)
    return _os_open(path, *arguments, **options)


builtins.open = io.open = _failing_open
os.open = _failing_os_open
