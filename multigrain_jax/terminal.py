"""Output that may lose its reader without ending the run, and steers no terminal."""

import contextlib
import functools
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from logging import LogRecord, getLogger
from typing import Any, NoReturn, TextIO, cast

from absl import logging

from multigrain_jax.errors import printable

# Of one's own lines and progress bars.
KEPT = "\n\r\t"
# How a progress bar below another one goes back to its line: a text of its own.
_UP = re.compile(r"\n*(?:\x1b\[A)*")

Main = Callable[[list[str]], int]


# The number that a system has for it.
_STDOUT = 1


class _Unread:
    words: str | None = None


@contextlib.contextmanager
def saying_when_unread(words: str) -> Generator[None]:
    """Within this context tell on standard error that nobody reads standard output.

    Args:
        words: the line, of what goes on all the same.
    """
    _Unread.words = words
    try:
        yield
    finally:
        _Unread.words = None


class _Telling:
    tell: Callable[[str, str], None] | None = None


@contextlib.contextmanager
def telling(tell: Callable[[str, str], None]) -> Generator[None]:
    """Within this context let `tell` have the results that do not wait for the end.

    Args:
        tell: of a result's name and value.
    """
    _Telling.tell = tell
    try:
        yield
    finally:
        _Telling.tell = None


def tell_result(name: str, value: str) -> None:
    """Print what a run is for while it goes on, also where little is printed.

    Args:
        name: what it is, for who reads JSON.
        value: the line.
    """
    if _Telling.tell is None:
        print(value, flush=True)
    else:
        _Telling.tell(name, value)


class _Patient(io.TextIOWrapper):
    """Text that goes nowhere once its reader has gone, as with `| head`.

    A file on a full disk and a terminal that was closed end no run either: Python keeps
    what its buffer holds of the text until there is room, and the rest is lost.
    What a terminal would obey is written out: whatever message has a name in it.
    """

    def write(self, text: str) -> int:
        shown = text if _UP.fullmatch(text) else printable(text, keep=KEPT)
        try:
            super().write(shown)
        except OSError as error:
            self._outlive(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._outlive(error)

    def _outlive(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if self.fileno() == _STDOUT and _Unread.words is not None:
            print(_Unread.words, file=sys.stderr, flush=True)


class WarningsAlone(io.TextIOBase):
    """Lets whole lines through that are warnings, and drops the others."""

    def __init__(self, stream: TextIO):
        """Write them to `stream`."""
        self._stream, self._begun = stream, ""

    def write(self, text: str) -> int:
        """Take a text, of which the last line may go on."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.startswith("WARNING"):
                self._stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """Bring out what was let through."""
        self._stream.flush()


def outlive_readers() -> None:
    """Let a process go on whose output is closed, at its start or on the way."""
    # A number of a standard stream that is free would be given to the next file, and
    # what libraries print would land there.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = _patient(sys.stdout)
    sys.stderr = _patient(sys.stderr)


def _patient(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed before Python began
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, errors = stream.encoding, stream.errors
    return _Patient(
        # Not detached: others hold the stream too, and write to it.
        stream.buffer,
        encoding=encoding,
        errors=errors,
        # In a file too: with errors, which do not wait, in the order of their telling.
        line_buffering=True,
        write_through=stream.write_through,
    )


def print_any_name(stream: TextIO) -> None:
    """Let a stream print names of bytes that no encoding has, and C locales little."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class _Changed:
    """A stream that shows other texts than those that are written."""

    def __init__(self, stream: TextIO, change: Callable[[str], str]):
        self._stream, self._change = stream, change

    def write(self, text: str) -> int:
        self._stream.write(self._change(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


# Paths, and what is shown in their place within `renaming`; longer ones first.
_shown: dict[str, str] = {}


def show_as(path: str, name: str) -> None:
    """From now on let `renaming` show `name` in place of `path`."""
    _shown[path] = name
    for known in sorted(_shown, key=len, reverse=True):
        _shown[known] = _shown.pop(known)


def renaming() -> contextlib.AbstractContextManager[None]:
    """Within this context what is printed has the names that `show_as` gives."""
    return changing(_rename)


def _rename(text: str) -> str:
    for path, name in _shown.items():
        text = text.replace(path, name)
    return text


@contextlib.contextmanager
def changing(change: Callable[[str], str]) -> Generator[None]:
    """Within this context print what `change` makes of a text, to both streams."""
    print_any_name(sys.stdout)
    stdout, stderr = (_Changed(stream, change) for stream in (sys.stdout, sys.stderr))
    with (
        contextlib.redirect_stdout(cast(TextIO, stdout)),
        contextlib.redirect_stderr(cast(TextIO, stderr)),
    ):
        yield


def quiet_libraries() -> None:
    """Keep the libraries below from logging each step of a save, and stacks of calls.

    What they log with a stack they raise as well, and whoever catches it tells of it.
    """
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(_is_without_stack)
    getLogger("jax._src.xla_bridge").addFilter(_is_not_told_here)
    # Of XLA, and TensorFlow where it is used, errors alone; read when they are loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.unraisablehook = _tell_unraisable
    if _LEFT_TO_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_LEFT_TO_TRACKER)


# Reading processes are told too. A run whose reads hang ends without clearing its
# semaphores; the process that Python has for that clears them, and would warn of it.
_LEFT_TO_TRACKER = "ignore:resource_tracker:UserWarning"
# As Python has it, or whoever has replaced that.
_usual_hook = sys.unraisablehook


def _is_without_stack(record: LogRecord) -> bool:
    return not record.exc_info


def _is_not_told_here(record: LogRecord) -> bool:
    # A GPU without its plugin: runs say so themselves, with a remedy.
    return "An NVIDIA GPU may be present" not in record.getMessage()


def _tell_unraisable(found: Any) -> None:
    # What TensorStore still does for a save when another part of it has failed reports
    # to a loop that Orbax has closed, each array with a stack of its own.
    if str(found.exc_value) != "Event loop is closed":
        _usual_hook(found)


def lets_others_fail(*, failures: Sequence[int]) -> Callable[[Main], Main]:
    """A main that does not wait for other hosts where it fails.

    JAX waits for them at the end of a process, for minutes, while they wait for what
    this one has failed to do: once it is gone, they end with an error.

    Args:
        failures: exit codes; an error that is not caught is one, too.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def ended(argv: list[str]) -> int:
            try:
                code = main(argv)
            except Exception:
                if not _has_others():
                    raise
                traceback.print_exc()
                leave_now(1)
            if code in failures:
                leave_others(code)
            return code

        return ended

    return decorate


def _has_others() -> bool:
    # Before JAX is imported, nobody can be connected.
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def leave_others(code: int) -> None:
    """End the process at once if there are other hosts, which then end, too."""
    if _has_others():
        leave_now(code)


def leave_now(code: int) -> NoReturn:
    """End the process without waiting for threads or for other hosts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
