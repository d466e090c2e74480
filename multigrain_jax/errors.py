"""The ways in which a run ends early on purpose, and how text from outside is shown."""

from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    """The text with escapes for what is no character, or steers a terminal.

    Names of files, classes and keys may hold line breaks, escape sequences, letters
    that turn the direction of writing, and bytes that are no UTF-8.

    Args:
        text: from outside.
        keep: what stays although it is none: line breaks of one's own message.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in text
    )


class _Told(Exception):
    """An exception whose message may go to a terminal, whatever names are in it.

    A name's line breaks are the business of who puts it into the message.
    """

    def __init__(self, *arguments: Any):
        texts = (
            printable(a, keep="\n") if isinstance(a, str) else a for a in arguments
        )
        super().__init__(*texts)


class InputError(_Told, ValueError):
    """Bad input or configuration: the user can mend it (exit code 2)."""


class StoppedEarly(_Told):
    """The run was asked to stop, has saved its state and can be resumed (exit 3)."""


class TakenOver(StoppedEarly):
    """Another run has come into the workdir, as the host that writes has noticed."""


class DataStalledError(_Told, RuntimeError):
    """The images do not come any more; a thread may hang in the file system."""


class ReadingGivenUp(Exception):
    """The images did not come, and the run was asked to stop meanwhile."""


class CheckpointNotSavedError(_Told, OSError):
    """The newest state of a run could not be stored."""


class CheckpointUnreadableError(InputError, OSError):
    """The storage has failed while a checkpoint was read: nothing is known of it."""
