"""One writer per workdir where that is in a bucket: an object with a heartbeat.

No kernel watches over an object, so its holder renews it, and each write of it is made
under the condition that nobody has written it since. Whoever finds it taken watches:
where it is renewed, its holder lives; where it is not for `STALE_S` seconds, by the
watcher's own clock, it is taken over.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Any

from multigrain_jax import buckets
from multigrain_jax.errors import InputError, printable

LOCK_OBJECT = ".lock"
HEARTBEAT_S = 15.0
# Four heartbeats; who has not renewed it for so long has been ended, or cut off.
STALE_S = 60.0
_LOOK_S = 2.0
_SHOWN = 200  # characters of a holder, whatever the object holds


class LockLostError(OSError):
    """Another run has taken the workdir: this one must not write there any more."""


class BucketLock:
    """A lock on a workdir in a bucket, from `acquire` to `release`."""

    def __init__(self, workdir: str, *, copy: str):
        """Remember whose it will be; nothing is asked yet.

        Args:
            workdir: its address.
            copy: what names this run's working copy. Whoever holds the lock of that
                copy, which is the kernel's, knows that an earlier run of it has ended.
        """
        self._workdir = workdir
        self._path = buckets.join(workdir, LOCK_OBJECT)
        self._owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "copy": copy,
            "id": secrets.token_hex(8),
        }
        self._beats = 0
        self._generation = buckets.ABSENT
        self._renewed = 0.0
        self._lost_to: str | None = None
        # One request at a time; of the thread and of whoever asks for a renewal.
        self._busy = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, after having watched one that may be left of a killed run.

        Raises:
            InputError: another run has the workdir.
            OSError: the bucket cannot be reached, or not be written to.
        """
        expected = buckets.ABSENT
        while not self._write(expected):
            expected = self._watch()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def is_own(self) -> bool:
        """Whether no other run is known to have taken it."""
        return self._lost_to is None

    def holder(self) -> str:
        """Who has taken it."""
        return self._lost_to or "another process"

    def require(self, *, at_once: bool = False) -> None:
        """Be sure of the lock before something is written, by a request if need be.

        Args:
            at_once: whether a request is made in any case.

        Raises:
            LockLostError: another run has taken it.
            OSError: the bucket cannot be reached.
        """
        if at_once or time.monotonic() - self._renewed > STALE_S / 2:
            self.renew()
        if self._lost_to is not None:
            raise LockLostError(f"{self._workdir} is now in use by {self._lost_to}")

    def renew(self) -> None:
        """Tell others that this run lives; find out whether one has come in.

        Raises:
            OSError: the bucket cannot be reached.
        """
        with self._busy:
            if self._lost_to is not None or self._write(self._generation):
                return
            found = self._read()
            if found is None:
                # Somebody has removed it. Whoever makes it anew first, has it.
                if self._write(buckets.ABSENT):
                    print(f"{self._path} was removed under this run; made anew")
                    return
                found = self._read()
            if found and found[1].get("id") == self._owner["id"]:
                # A write of its own was carried out, and its answer never came.
                self._generation = found[0]
                return
            self._lost_to = _named(found[1]) if found else "another process"
        print(f"{self._workdir}: the lock was taken by {self._lost_to}", flush=True)

    def release(self) -> None:
        """Let others in; without the bucket's answer they will have to watch."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._lost_to is None and self._generation != buckets.ABSENT:
            with contextlib.suppress(OSError):
                buckets.delete(self._path, if_generation=self._generation)

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            # The mirror tells of a bucket that does not answer.
            with contextlib.suppress(OSError):
                self.renew()

    def _write(self, expected: str) -> bool:
        self._beats += 1
        data = json.dumps({**self._owner, "beats": self._beats}).encode()
        started = time.monotonic()
        try:
            found = buckets.write_bytes(self._path, data, if_generation=expected)
        except buckets.ObjectChangedError:
            return False
        self._generation, self._renewed = found, started
        return True

    def _read(self) -> tuple[str, dict[str, Any]] | None:
        """The lock's generation and what it says; None: there is none."""
        while True:
            try:
                generation = buckets.stat(self._path).generation
                data = buckets.read_bytes(self._path, generation=generation)
            except FileNotFoundError:
                return None
            except buckets.ObjectChangedError:
                continue  # renewed between the two requests
            with contextlib.suppress(ValueError):
                found = json.loads(data)
                if isinstance(found, dict):
                    return generation, found
            return generation, {}

    def _watch(self) -> str:
        """The generation of a lock that nobody renews.

        Raises:
            InputError: somebody does.
        """
        found = self._read()
        if found is None:
            return buckets.ABSENT
        generation, owner = found
        # A copy of the copy, in an image of a machine, is another machine's.
        if all(owner.get(key) == self._owner[key] for key in ("copy", "host")):
            print(f"{self._workdir}: taken over from {_named(owner)}, which has ended")
            return generation
        print(
            f"{self._workdir} is locked by {_named(owner)}; whether that run lives is "
            f"watched for up to {STALE_S:.0f} s",
            flush=True,
        )
        end = time.monotonic() + STALE_S
        while time.monotonic() < end:
            time.sleep(min(_LOOK_S, STALE_S / 10))
            found = self._read()
            if found is None:
                return buckets.ABSENT
            if found[0] != generation:
                raise InputError(
                    f"{self._workdir} is in use by {_named(found[1])}, which has "
                    "renewed its lock just now; wait for that run, stop it, or choose "
                    "another --workdir"
                )
        print(f"{self._workdir}: taken over from {_named(owner)}, which is silent")
        return generation


def _named(owner: dict[str, Any]) -> str:
    if not {"process", "host", "since"} <= owner.keys():
        return "another process"
    text = f"process {owner['process']} on {owner['host']} since {owner['since']}"
    return printable(text)[:_SHOWN]
