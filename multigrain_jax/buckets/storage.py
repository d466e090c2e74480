"""What the two kinds of storage have in common, and the errors both raise."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, Protocol

from multigrain_jax.buckets.paths import Address
from multigrain_jax.buckets.retry import in_short
from multigrain_jax.errors import InputError

# As `if_generation`: the object must not be there yet.
ABSENT = "0"


class ObjectChangedError(OSError):
    """An object is not of the generation that a request was made for."""


class Status(NamedTuple):
    """What is known of one object without reading it.

    Attributes:
        path: its address.
        size: in bytes.
        generation: which of the objects that had this name over time; two of equal
            generation hold the same bytes.
        modified: seconds since 1970, by the storage's clock.
        md5: of its bytes, in hexadecimal; None where the storage does not know it.
    """

    path: str
    size: int
    generation: str
    modified: float
    md5: str | None


class Storage(Protocol):
    """One kind of storage: a request each, without a second try."""

    def read(
        self, at: Address, start: int, length: int | None, generation: str | None
    ) -> bytes:
        """The bytes of an object, or a part of them."""
        ...

    def fetch(self, at: Address, file: IO[bytes], generation: str | None) -> None:
        """Write the bytes of an object to a file."""
        ...

    def status(self, at: Address) -> Status:
        """What is known of an object."""
        ...

    def page(self, at: Address, token: str | None) -> tuple[list[Status], str | None]:
        """Objects whose names begin so, and how to ask for those that follow."""
        ...

    def write(
        self, at: Address, file: IO[bytes], size: int, if_generation: str | None
    ) -> str:
        """Write an object; its generation."""
        ...

    def delete(self, at: Address, if_generation: str | None) -> None:
        """Delete an object."""
        ...


def not_found(at: Address) -> FileNotFoundError:
    """The error for an object that is not there."""
    return FileNotFoundError(errno.ENOENT, "no such object", str(at))


def no_bucket(at: Address) -> InputError:
    """The error for a bucket that is not there."""
    return InputError(
        f"{at}: there is no bucket {at.bucket!r}; make it, or mend the name"
    )


def no_permission(at: Address, reason: str, remedy: str) -> PermissionError:
    """The error for what this user may not do, or for a user who is not known."""
    words = in_short(reason)[:200]
    return PermissionError(errno.EACCES, f"not allowed ({words}); {remedy}", str(at))


def changed(at: Address, generation: str | None) -> ObjectChangedError:
    """The error for a precondition that does not hold."""
    expected = "no object" if generation == ABSENT else f"generation {generation}"
    return ObjectChangedError(
        errno.EEXIST, f"somebody has written it; expected {expected}", str(at)
    )


def missing_extra(at: Address, extra: str) -> InputError:
    """The error for a library that is not installed."""
    return InputError(
        f"{at}: {at.scheme}:// needs the extra {extra!r}: "
        f"pip install 'multigrain_jax[{extra}]'"
    )


class Connections:
    """Clients of one library: one for each process, or each of its threads.

    A process that was forked makes its own: sockets are not for two.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        settings: tuple[str, ...],
        for_all_threads: bool,
    ):
        """Remember how to make one.

        Args:
            make: makes a client.
            settings: variables of the environment that a client is made by.
            for_all_threads: whether threads may share one.
        """
        self._make, self._settings = make, settings
        self._for_all_threads = for_all_threads
        self._all: dict[tuple[Any, ...], Any] = {}
        self._making = threading.Lock()
        # A fork in the middle would leave it locked for ever.
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._making = threading.Lock()

    def get(self) -> Any:
        """The client for this thread."""
        values = [os.environ.get(name) for name in self._settings]
        thread = 0 if self._for_all_threads else threading.get_ident()
        key = (os.getpid(), thread, *values)
        with self._making:
            if key not in self._all:
                self._all[key] = self._make()
            return self._all[key]

    def close(self) -> None:
        """Close those of this process."""
        for key in [key for key in list(self._all) if key[0] == os.getpid()]:
            with contextlib.suppress(Exception):
                self._all.pop(key).close()


def all_pages(
    page: Callable[[str | None], tuple[list[Status], str | None]],
) -> Iterator[Status]:
    """Objects page by page, until there is no token for another one."""
    token = None
    while True:
        found, token = page(token)
        yield from found
        if token is None:
            return
