"""Keeps a folder of this machine in a bucket: changed files follow as whole objects.

A thread looks at the folder every few seconds. What has changed is linked aside, which
takes a moment and is a state of the folder that a kill could have left, and is then
written object by object. Files by which others are found come last, and what is gone
goes after them: a kill of the mirror leaves a state too that readers can tell whole
from unfinished.
"""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from multigrain_jax import buckets
from multigrain_jax.bucket_lock import LockLostError
from multigrain_jax.errors import CheckpointNotSavedError, InputError
from multigrain_jax.mirrored_files import (
    FileState,
    Staged,
    file_state,
    found_files,
    is_head,
    stage,
)

# Between two looks at the folder, at which nothing is asked of the bucket.
PASS_S = 10.0
# At the end what is left is tried for so long. Machines that are taken back give less.
LAST_PATIENCE_S = 120.0
LAST_PAUSE_S = 1.0
SECONDS_BETWEEN_WARNINGS = 60.0
UPLOADS_AT_ONCE = 4
# Tries to see the folder at one moment.
_LOOKS = 500
# A larger file that grows follows with the next checkpoint, or once it has grown by so
# much: each time it is written whole.
LARGE_BYTES = 8 << 20
GROWN = 1.1


class Known(NamedTuple):
    """What was uploaded or downloaded last: the object's generation, and the file."""

    generation: str
    file: FileState


class Guard(Protocol):
    """What says whether this run may write in the bucket."""

    def require(self, *, at_once: bool = False) -> None:
        """Raise an error where it may not, or where that cannot be found out."""
        ...


class _MovedError(Exception):
    """The folder has changed while it was looked at."""


class Mirror:
    """The upward half of a working copy: `start`, and `finish` at the end."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        known: dict[str, Known],
        staging: Path,
        guard: Guard | None,
        is_own: Callable[[str], bool],
        remember: Callable[[dict[str, Known]], None],
    ):
        """Remember what is there; nothing is written before `start`.

        Args:
            folder: what is mirrored.
            url: where to.
            known: what the folder and the bucket share, by the names of objects below
                the address; kept up to date here.
            staging: a folder on the same disk for links, emptied here.
            guard: asked before each write.
            is_own: whether this process writes the object of a name.
            remember: called with `known` when it has changed.
        """
        self._folder, self._url, self._staging = folder, url, staging
        self._known, self._guard = known, guard
        self._is_own, self._remember = is_own, remember
        self._apart: str | None = None
        self._busy = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned_at: float | None = None
        # How long the longest pass has taken.
        self.longest = 0.0

    def start(self) -> None:
        """Begin to follow the folder."""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def keep_apart(self, name: str) -> None:
        """Upload what is below one folder only from now on; the rest is another's."""
        self._apart = name

    def upload(self) -> None:
        """Bring all that has changed to the bucket.

        Raises:
            LockLostError: another run has the workdir.
            OSError: not all could be uploaded.
        """
        self._pass(full=True)

    def settle(self) -> None:
        """Wait until the bucket has all that the folder has, or for a fault."""
        try:
            self.upload()
        except (OSError, InputError) as error:
            self._warn(error)

    def finish(self) -> None:
        """Upload what is left, with some patience, and end.

        Raises:
            LockLostError: another run has the workdir; what is left is not uploaded.
            CheckpointNotSavedError: not all could be uploaded.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        end = time.monotonic() + LAST_PATIENCE_S
        while True:
            try:
                self.upload()
                return
            except LockLostError:
                raise
            except (OSError, InputError) as error:
                late = time.monotonic() + LAST_PAUSE_S > end
                if late or isinstance(error, InputError):  # the bucket is gone
                    raise CheckpointNotSavedError(
                        f"not all files could be uploaded to {self._url}: {error}; "
                        "they are kept on this machine: the same command, given here, "
                        "uploads them and goes on"
                    ) from error
            time.sleep(LAST_PAUSE_S)

    def _follow(self) -> None:
        while not self._ended.wait(PASS_S):
            try:
                self._pass(full=False)
            except LockLostError:
                return  # the lock has told of it; the run finds out at its next save
            except Exception as error:
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if self._warned_at is None or (
            now - self._warned_at >= SECONDS_BETWEEN_WARNINGS
        ):
            self._warned_at = now
            print(
                f"WARNING: {self._url} cannot be written: {error}; what has changed "
                "waits on this machine",
                flush=True,
            )

    def _pass(self, *, full: bool) -> None:
        """Upload what has changed since the last pass.

        Args:
            full: whether large files that have grown little follow too.

        Raises:
            OSError: not all could be uploaded.
        """
        with self._busy:
            started = time.monotonic()
            try:
                while not self._try_all(full):
                    time.sleep(0.01)
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)
            self.longest = max(self.longest, time.monotonic() - started)
            if self._warned_at is not None:
                self._warned_at = None
                print(f"{self._url}: written again, whole", flush=True)

    def _try_all(self, full: bool) -> bool:
        """Upload what has changed; whether the folder has kept still for it."""
        staged, gone = self._snapshot(full)
        try:
            if staged or gone:
                self._upload_all(staged, gone)
        except _MovedError:
            return False
        return True

    def _snapshot(self, full: bool) -> tuple[list[Staged], list[str]]:
        """What has changed, as links, and the names of what is gone."""
        for _ in range(_LOOKS):
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)
            try:
                return self._look(full)
            except (_MovedError, FileNotFoundError):
                time.sleep(0.01)
        raise OSError(f"{self._folder} changes too fast to be looked at")

    def _look(self, full: bool) -> tuple[list[Staged], list[str]]:
        files = self._own_files()
        heads = {name: file_state(files[name]) for name in files if is_head(name)}
        gone = [] if self._apart else [n for n in self._known if n not in files]
        gone = [name for name in gone if self._is_mine(name)]
        changed = [
            name for name, path in files.items() if self._has_changed(name, path)
        ]
        full = full or any(is_head(name) for name in changed)
        staged = [
            stage(name, files[name], self._staging / str(number))
            for number, name in enumerate(sorted(changed, key=is_head, reverse=True))
            if full or not self._can_wait(name, files[name])
        ]
        # Of one moment: nothing by which others are found has changed since.
        files = self._own_files()
        if heads != {name: file_state(files[name]) for name in files if is_head(name)}:
            raise _MovedError
        return staged, gone

    def _own_files(self) -> dict[str, Path]:
        found = found_files(self._folder)
        return {name: path for name, path in found if self._is_mine(name)}

    def _is_mine(self, name: str) -> bool:
        if self._apart is not None:
            return name.startswith(f"{self._apart}/")
        return self._is_own(name)

    def _has_changed(self, name: str, path: Path) -> bool:
        known = self._known.get(name)
        return known is None or known.file != file_state(path)

    def _can_wait(self, name: str, path: Path) -> bool:
        known = self._known.get(name)
        if known is None or known.file.size <= LARGE_BYTES:
            return False
        return known.file.size <= path.stat().st_size < known.file.size * GROWN

    def _upload_all(self, staged: Sequence[Staged], gone: Sequence[str]) -> None:
        heads = [each for each in staged if is_head(each.name)]
        others = [each for each in staged if not is_head(each.name)]
        failed = threading.Event()

        def upload(each: Staged) -> None:
            if failed.is_set():
                return  # it would fail as well, after a minute
            try:
                self._upload(each)
            except BaseException:
                failed.set()
                raise

        try:
            # What a head names before the head; and a head before what it named.
            with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
                list(pool.map(upload, others))
            for each in heads:
                self._upload(each)
            for name in sorted(gone, key=lambda name: not is_head(name)):
                self._delete(name)
        finally:
            self._remember(self._known)

    def _upload(self, staged: Staged) -> None:
        try:
            self._write(*staged)
        except LockLostError:
            raise
        except OSError as error:
            if staged.link is not None and file_state(staged.link) != staged.file:
                raise _MovedError from error  # perhaps it was cut in its place
            raise

    def _write(self, name: str, link: Path | None, file: FileState) -> None:
        self._require()
        path = buckets.join(self._url, name)
        known = self._known.get(name)
        expected = known.generation if known else buckets.ABSENT
        for _ in range(2):
            try:
                if link is None:
                    generation = buckets.write_bytes(path, b"", if_generation=expected)
                else:
                    generation = buckets.upload(
                        link, path, size=file.size, if_generation=expected
                    )
                break
            except buckets.ObjectChangedError:
                expected = self._written_by_others(path)
        else:
            raise OSError(f"{path} is written by somebody else, again and again")
        self._known[name] = Known(generation, file)

    def _delete(self, name: str) -> None:
        self._require()
        path = buckets.join(self._url, name)
        try:
            buckets.delete(path, if_generation=self._known[name].generation)
        except buckets.ObjectChangedError:
            expected = self._written_by_others(path)
            if expected != buckets.ABSENT:
                buckets.delete(path, if_generation=expected)
        del self._known[name]

    def _require(self) -> None:
        if self._guard is not None and self._apart is None:
            self._guard.require()

    def _written_by_others(self, path: str) -> str:
        """What an object's generation is, where this run may write it all the same.

        Raises:
            LockLostError: it is another run's.
        """
        if self._guard is not None and self._apart is None:
            self._guard.require(at_once=True)
        try:
            found = buckets.stat(path).generation
        except FileNotFoundError:
            return buckets.ABSENT
        print(f"{path} was written by somebody else; this run's takes its place")
        return found
