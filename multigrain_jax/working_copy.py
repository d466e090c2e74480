"""A workdir in a bucket, and the folder of this machine where a run works on it.

All code of a run reads and writes a folder, with its promises. At the start the folder
gets what the bucket has; meanwhile and at the end a mirror brings back what changes.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from multigrain_jax import buckets
from multigrain_jax.bucket_lock import LOCK_OBJECT, BucketLock, LockLostError
from multigrain_jax.checkpoint import CHECKPOINTS_FOLDER, apart_folder
from multigrain_jax.data.cache import cache_folder
from multigrain_jax.errors import InputError, StoppedEarly, printable
from multigrain_jax.files import (
    MAX_TEXT_BYTES,
    parse_json,
    read_small,
    settling,
    unescape_name,
    write_atomically,
)
from multigrain_jax.lock import guarded, lock_workdir
from multigrain_jax.mirror import Known, Mirror
from multigrain_jax.mirrored_files import (
    EMPTY,
    FileState,
    file_state,
    found_files,
    is_of_a_mirror,
    unfinished,
)
from multigrain_jax.terminal import show_as

DOWNLOADS_AT_ONCE = 8
_STATE_FILE, _COPY_FILE = "state.json", "copy.txt"
_STAGING = "staged"
_HOSTS = "hosts"


def home_of(url: str, *, host: int = 0) -> Path:
    """Where the working copy of a workdir is, and what is noted of it.

    Args:
        url: the workdir's address.
        host: the number of this process among those of the run.
    """
    digest = hashlib.sha256(f"{url} {host}".encode()).hexdigest()[:16]
    return cache_folder("workdirs") / digest


@contextlib.contextmanager
def working_copy(
    url: str,
    *,
    host: int = 0,
    writes: bool = True,
    meet: Callable[[], None] = lambda: None,
) -> Generator[Path]:
    """A folder of this machine that holds a workdir of a bucket, and is mirrored there.

    Args:
        url: the workdir's address.
        host: the number of this process; process 0 holds the lock and writes all but
            the records of the others, who write theirs.
        writes: whether anything is to be written; otherwise there is no lock either.
        meet: waits for all hosts. They read between the lock and the first writing.

    Raises:
        InputError: another run has the workdir; no such bucket; a missing extra.
        StoppedEarly: another run has taken the workdir meanwhile.
        CheckpointNotSavedError: at the end not all could be uploaded.
        OSError: the bucket cannot be reached, or not be read.
    """
    url = buckets.normalize(url)
    if not buckets.split(url).key:
        raise InputError(
            f"--workdir: found the bucket {url} itself, of which all would be read; "
            f"expected a name in it, such as {url}/runs/first"
        )
    home = home_of(url, host=host)
    folder = home / url.rpartition("/")[2]
    show_as(str(folder), url)
    show_as(str(home), url)
    with contextlib.ExitStack() as stack:
        stack.callback(buckets.disconnect)
        stack.enter_context(lock_workdir(home))
        lock = BucketLock(url, copy=_name_of(home)) if writes and not host else None
        if lock is not None:
            lock.acquire()
            stack.callback(lock.release)
        if host:
            meet()  # until process 0 has brought there what is left of a run before
        known = _refresh(url, home, folder, cleans=lock is not None)
        mirror = Mirror(
            folder,
            url,
            known=known,
            staging=home / _STAGING,
            guard=lock,
            is_own=lambda name: _host_of(name) == host,
            remember=lambda now: _note(home, now),
        )
        if lock is not None:
            mirror.upload()
        if not host:
            meet()
        meet()  # all have read
        if not writes:
            yield folder
            return
        stack.enter_context(settling(folder, mirror.settle))
        if lock is not None:
            stack.enter_context(guarded(folder, lock))
        mirror.start()
        _mirrors.append(mirror)
        stack.callback(_mirrors.remove, mirror)
        try:
            yield folder
        except BaseException as error:
            _finish_after(error, mirror, lock, url)
            raise
        _finish(mirror, lock, url)


# Those of the runs of this process.
_mirrors: list[Mirror] = []


def seconds_to_upload() -> float:
    """How long it has taken at most to bring to a bucket what had changed; mostly 0."""
    return max((mirror.longest for mirror in _mirrors), default=0.0)


def _finish(mirror: Mirror, lock: BucketLock | None, url: str, told: str = "") -> None:
    """Upload what is left.

    Args:
        mirror: which does it.
        lock: of this run; None for hosts that have none.
        url: the workdir's address.
        told: what else there is to say where another run has come in.
    """
    if lock is not None:
        with contextlib.suppress(OSError):
            lock.renew()  # the last heartbeat is some seconds old
        if not lock.is_own():
            mirror.keep_apart(apart_folder())
    try:
        mirror.finish()
    except LockLostError:
        mirror.keep_apart(apart_folder())
        mirror.finish()
    if lock is not None and not lock.is_own():
        raise StoppedEarly(
            f"{told}{url} is now in use by {lock.holder()}: of what this run has made "
            f"since, at most {apart_folder()} is there; run it again once that run is "
            "over, or with another --workdir"
        )


def _finish_after(
    error: BaseException, mirror: Mirror, lock: BucketLock | None, url: str
) -> None:
    """Upload what a run leaves that ends by an error, which is passed on."""
    if isinstance(error, StoppedEarly):
        # What it says is saved has to be, or that is what is said.
        _finish(mirror, lock, url, told=f"{error}; ")
        return
    try:
        _finish(mirror, lock, url)
    except (OSError, StoppedEarly) as other:
        print(f"WARNING: {other}", flush=True)


def _refresh(url: str, home: Path, folder: Path, *, cleans: bool) -> dict[str, Known]:
    """Let the folder hold what the bucket has.

    Where nobody has written to the bucket since this folder was mirrored, what has
    changed in the folder since then stays, and is mirrored later on: a run could not
    bring it there.

    Args:
        url: the workdir's address.
        home: where it is noted what the folder has.
        folder: to be brought up to date.
        cleans: whether what is left in the bucket of checkpoints that were cut short
            is deleted.

    Returns:
        What the bucket and the folder share.
    """
    there, noted = _there(url), _noted(home)
    known = noted or {}
    cut = unfinished(list(there))
    # What of a checkpoint was brought there in part is no other run's for that.
    continues = noted is not None and {
        name: each.generation for name, each in known.items()
    } == {n: s.generation for n, s in there.items() if n in known or n not in cut}
    folder.mkdir(parents=True, exist_ok=True)
    for name in cut:
        if continues and name in known and (folder / unescape_name(name)).exists():
            continue  # the mirror goes on with it
        status = there.pop(name)
        # Another run may be saving its state apart just now.
        if cleans and name.startswith(f"{CHECKPOINTS_FOLDER}/"):
            buckets.delete(status.path, if_generation=status.generation)
    if not continues:
        _remove_others(folder, there, known)
    here = dict(found_files(folder))
    wanted = {
        name: status
        for name, status in there.items()
        if not _is_here(here.get(name), known.get(name), status, continues)
    }
    if wanted:
        size = sum(status.size for status in wanted.values())
        _require_room(url, home, size)
        print(f"{url}: {len(wanted)} files, {size / 1e6:.1f} MB, are read", flush=True)

    def fetch(name: str) -> None:
        path = folder / unescape_name(name)
        if path.name == EMPTY:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            buckets.download(wanted[name].path, path)

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        list(pool.map(fetch, wanted))
    shared = {}
    for name, status in there.items():
        if name in wanted:
            path = folder / unescape_name(name)
            at = path.parent if path.name == EMPTY else path
            shared[name] = Known(status.generation, file_state(at))
        else:
            shared[name] = known[name]
    _note(home, shared)
    return shared


def _there(url: str) -> dict[str, buckets.Status]:
    """What lies in the bucket, but for the lock and what no mirror has written."""
    prefix = f"{url}/"
    found = {each.path.removeprefix(prefix): each for each in buckets.list_objects(url)}
    found = {n: s for n, s in found.items() if n.rpartition("/")[2] != LOCK_OBJECT}
    others = [name for name in found if not is_of_a_mirror(name)]
    if others:
        print(
            f"{url}: {len(others)} objects that are no run's, such as "
            f"{printable(others[0])[:100]}, stay there and are not read"
        )
    return {name: status for name, status in found.items() if is_of_a_mirror(name)}


def _require_room(url: str, home: Path, size: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(home).free
    if size > free:
        raise InputError(
            f"--workdir: {size / 1e9:.1f} GB in {url} are to be read, and the disk of "
            f"{cache_folder('workdirs')} has {free / 1e9:.1f} GB free; make room, name "
            "another folder by MULTIGRAIN_CACHE, or choose an address that is a "
            "workdir's alone"
        )


def _is_here(
    path: Path | None, known: Known | None, status: buckets.Status, continues: bool
) -> bool:
    """Whether an object need not be read."""
    if path is None or known is None:
        return False
    return continues or (
        known.generation == status.generation and known.file == file_state(path)
    )


def _remove_others(
    folder: Path, there: Mapping[str, buckets.Status], known: Mapping[str, Known]
) -> None:
    """Remove what the bucket does not have."""
    dropped = 0
    for name, path in found_files(folder):
        if path.is_file() and (
            name not in known or known[name].file != file_state(path)
        ):
            dropped += 1
        if name not in there and path.is_file():
            path.unlink()
    if dropped:
        print(
            f"{dropped} files that an earlier run has left on this machine give way to "
            "what is in the bucket"
        )
    for path in sorted(folder.rglob("*"), reverse=True):
        # Those that hold what is never mirrored alone go whole.
        if path.is_dir() and not dict(found_files(path)):
            shutil.rmtree(path, ignore_errors=True)


def _host_of(name: str) -> int:
    """The number of the process whose record an object is."""
    first, _, rest = name.partition("/")
    number = rest.partition("/")[0]
    return int(number) if first == _HOSTS and number.isdecimal() else 0


def _name_of(home: Path) -> str:
    """What tells this working copy from all others."""
    path = home / _COPY_FILE
    with contextlib.suppress(FileNotFoundError):
        if name := path.read_text(encoding="utf-8"):
            return name
    with write_atomically(path) as file:
        file.write(secrets.token_hex(16).encode())
    return path.read_text(encoding="utf-8")


def _noted(home: Path) -> dict[str, Known] | None:
    """What the bucket and the folder shared last; None where that is not known."""
    try:
        text = read_small(home / _STATE_FILE, max_bytes=MAX_TEXT_BYTES).decode()
        return {
            name: Known(generation, FileState(*file))
            for name, (generation, file) in parse_json(text).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _note(home: Path, known: dict[str, Known]) -> None:
    with write_atomically(home / _STATE_FILE) as file:
        file.write(json.dumps(known).encode())
