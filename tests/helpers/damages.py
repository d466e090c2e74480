"""What can be done to a file that a user can break."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from multigrain_jax.errors import InputError


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_unreadable(path):
    """As for a user who is not root: what cannot be opened at all."""
    path.unlink()
    path.symlink_to(path.name)  # a link to itself


def make_pipe(path):
    """Whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def of_another_task(path):
    path.write_text(json.dumps({"task": "train", "test/top1": 0.5}))


def of_a_later_version(path):
    path.write_text(json.dumps({"format_version": 99, "new": [{}]}))


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "folder": make_folder,
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00\x9f" * 9),
    "unreadable": make_unreadable,
    "pipe": make_pipe,
    "of another task": of_another_task,
    "of a later version": of_a_later_version,
}


def is_one_line(error: Exception, folder: Path) -> bool:
    """Whether an error names a file of a folder, in one line that can be printed."""
    # A checkpoint lists what is wrong with it, one a line.
    said = str(error).replace("\n  meta: ", ": ")
    said = said.removeprefix("the configuration cannot work:\n  ")
    return "\n" not in said and str(folder) in said and said.isprintable()


def what_is_wrong(task: Callable[[], object], folder: Path) -> str | None:
    """How a task ends that neither does its work nor names a file in one line."""
    try:
        task()
    except InputError as error:
        return None if is_one_line(error, folder) else str(error)
    except Exception as error:
        return repr(error)
    return None
