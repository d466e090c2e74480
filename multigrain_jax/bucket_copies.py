"""Folders of buckets, as copies on this machine that are whole and do not change.

A copy is of the objects that a folder had at one moment, each told by its generation.
Another run finds it, where the bucket has not changed; where it has, only objects that
are new are fetched. Copies lie in the cache folder, and may be deleted there when
nothing runs.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath

from multigrain_jax import buckets
from multigrain_jax.data.cache import cache_folder
from multigrain_jax.errors import InputError
from multigrain_jax.files import read_json, write_atomically
from multigrain_jax.lock import wait_for_turn

CACHE_KIND = "buckets"
# The objects of a copy, in a file beside it; the newest copies of a folder stay.
_LIST_SUFFIX = ".json"
_COPIES_KEPT = 2
_UNUSED_S = 24 * 3600.0
_AT_ONCE = 8
# How often a folder is looked at that is written meanwhile.
ATTEMPTS = 5
PAUSE_S = 1.0

# Which of the objects below an address are wanted, by their names from there, and empty
# folders that are to be beside them.
Wanted = tuple[dict[str, buckets.Status], list[str]]

# The folders of copies, and the addresses that they are copies of.
_addresses: dict[str, str] = {}


class CopiedPath(PosixPath):
    """A path of a copy on the disk that is shown as what it is a copy of."""

    def __str__(self) -> str:
        """The address."""
        own = super().__str__()
        for folder, url in tuple(_addresses.items()):
            if own == folder or own.startswith(f"{folder}/"):
                return url + own[len(folder) :]
        return own

    def __fspath__(self) -> str:
        """Where it is on the disk."""
        return super().__str__()

    def absolute(self) -> "CopiedPath":
        """The same."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As of any path; an error names the address."""
        try:
            return super().stat(follow_symlinks=follow_symlinks)
        except OSError as error:
            error.filename = str(self)
            raise

    def iterdir(self) -> Iterator["CopiedPath"]:
        """What is in it."""
        return (self / name for name in os.listdir(self))

    def glob(
        self, pattern: str, *, case_sensitive: bool | None = None
    ) -> Iterator["CopiedPath"]:
        """What is named so, one part of the pattern for each folder; no `**`."""
        first, _, rest = pattern.partition("/")
        names = sorted(os.listdir(self)) if self.is_dir() else []
        for name in names:
            if fnmatchcase(name, first):
                yield from (self / name).glob(rest) if rest else iter([self / name])


def copy_of(
    url: str,
    choose: Callable[[dict[str, buckets.Status]], Wanted],
    *,
    is_whole: Callable[[Path], bool],
    at: str | None = None,
) -> CopiedPath:
    """A folder of this machine with what is wanted of what lies below an address.

    Args:
        url: the address.
        choose: of all objects, by their names below the address, those that are wanted.
        is_whole: whether the files of a copy belong together; they may not where a
            writer is at work.
        at: the address that the chosen names are below; None: `url`.

    Raises:
        InputError: the folder was written to again and again while it was read, or may
            not be read.
        OSError: the storage does not answer, or the disk is full.
    """
    url = buckets.normalize(url)
    before = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        wanted, folders = choose(_list(url))
        if wanted == before:
            # It is not being written: whoever reads it says what is wrong.
            return _copy(at or url, wanted, folders)
        before = wanted
        try:
            copy = _copy(at or url, wanted, folders)
        except (FileNotFoundError, buckets.ObjectChangedError):
            continue  # replaced since it was listed
        if is_whole(copy) and choose(_list(url))[0] == wanted:
            return copy
    raise InputError(
        f"{url}: somebody writes there, and it was found different {ATTEMPTS} times in "
        "a row; expected a folder that stays as it is for a moment: try again later"
    )


def _list(url: str) -> dict[str, buckets.Status]:
    prefix = len(url) + 1
    try:
        listed = {each.path[prefix:]: each for each in buckets.list_objects(url)}
    except PermissionError as error:
        raise _not_allowed(url, error) from error
    # Names that no file has (`a//b`, `..`) would lead out of the copy.
    strange = {"", ".", ".."}
    return {n: s for n, s in listed.items() if strange.isdisjoint(n.split("/"))}


def _not_allowed(url: str, error: PermissionError) -> InputError:
    return InputError(f"{url}: reading it failed: {error.strerror or error}")


def _copy(
    url: str, wanted: Mapping[str, buckets.Status], folders: list[str]
) -> CopiedPath:
    """The copy of these objects, made where it is not there yet."""
    stamps = {n: [s.size, s.generation] for n, s in sorted(wanted.items())}
    about = json.dumps([stamps, sorted(folders)])
    home = cache_folder(CACHE_KIND) / "folders" / _name(url)
    copy = home / _name(about)
    home.mkdir(parents=True, exist_ok=True)
    with wait_for_turn(home / ".lock", purpose=url):
        if not copy.is_dir():
            _make(url, wanted, folders, stamps, copy)
        os.utime(copy)
        for old in sorted(_copies(home), key=_age)[_COPIES_KEPT:]:
            if _age(old) > _UNUSED_S:  # else a run may be reading it
                shutil.rmtree(old)
                old.with_name(old.name + _LIST_SUFFIX).unlink(missing_ok=True)
    _addresses[str(copy)] = url
    return CopiedPath(copy)


def _make(
    url: str,
    wanted: Mapping[str, buckets.Status],
    folders: list[str],
    stamps: Mapping[str, list[object]],
    copy: Path,
) -> None:
    """Fetch what no other copy has; the folder appears whole."""
    known: dict[str, Path] = {}
    for other in _copies(copy.parent):
        have = _stamps_of(other)
        known |= {n: other / n for n in stamps if have.get(n) == stamps[n]}
    fetched = {n: status for n, status in wanted.items() if n not in known}
    size = sum(status.size for status in fetched.values())
    if fetched:
        print(
            f"{url}: {len(fetched)} of {len(wanted)} files, {size / 1e6:.1f} MB, are "
            f"copied to {copy.parent}",
            flush=True,
        )
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    for name in ("", *(os.path.dirname(n) for n in wanted), *folders):
        (partial / name).mkdir(parents=True, exist_ok=True)

    def fetch(name: str) -> None:
        path, _, generation, modified, _ = wanted[name]
        buckets.download(path, partial / name, generation=generation)
        os.utime(partial / name, (modified, modified))

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, fetched))
        for name, file in known.items():
            _link(file, partial / name)
    except PermissionError as error:
        raise _not_allowed(url, error) from error
    with write_atomically(copy.with_name(copy.name + _LIST_SUFFIX)) as file:
        file.write(json.dumps(stamps).encode())
    partial.replace(copy)


def _link(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copy2(file, link)


def _copies(home: Path) -> list[Path]:
    return [p for p in home.iterdir() if p.is_dir() and p.suffix != ".partial"]


def _age(copy: Path) -> float:
    """Seconds since a run has asked for a copy."""
    return time.time() - copy.stat().st_mtime


def _stamps_of(copy: Path) -> Mapping[str, list[object]]:
    """What a copy is of; nothing where its record cannot be read."""
    try:
        found = read_json(copy.with_name(copy.name + _LIST_SUFFIX))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
