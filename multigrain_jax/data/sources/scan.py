"""Which files of a folder are images; what is passed over is counted."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.data.bucket_paths import BucketPath
from multigrain_jax.data.image_file import EXTRAS, image_suffixes
from multigrain_jax.errors import InputError, printable
from multigrain_jax.remedies import install

# What systems and programs leave in folders of photos: names and paths, in any case.
DEFAULT_EXCLUDE = (
    ".*",
    "@eaDir",
    "__MACOSX",
    "$RECYCLE.BIN",
    "lost+found",
    "Thumbs.db",
)
UNREADABLE = ("refuse", "skip")
# macOS writes one beside every photo on other disks.
APPLE_DOUBLE = "._"
NO_SUFFIX = "without a suffix"
NO_FILES = "pipes, sockets or devices"
NO_NAMES = "objects of a bucket with empty names, `.` or `..` on the way"
SUFFIX = re.compile(r"\.\w{1,10}")
SUFFIXES_NAMED = 30
PATHS_NAMED = 10
# Links to folders of links double the ways with each of them, without an end.
MAX_WAYS = 1000
RAW = ".arw .cr2 .cr3 .dng .nef .orf .pef .raf .raw .rw2 .srw"
VIDEO = ".3gp .avi .m4v .mkv .mov .mp4 .mpg .mts .webm .wmv"
# Of JPEG XL, the readers for Pillow decode a file before its size is known.
OTHER_PICTURES = ".ai .eps .ico .jxl .pdf .psd .svg .tga .xcf"
REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(RAW.split(), "raw photos: export them as JPEG"),
    **dict.fromkeys(VIDEO.split(), "videos: save pictures of them"),
    **dict.fromkeys(OTHER_PICTURES.split(), "save them as PNG"),
    **{
        suffix: install(extra)
        for _, suffixes, extra in EXTRAS.values()
        for suffix in suffixes
    },
    NO_SUFFIX: "photos among them need one, such as .jpg",
    NO_FILES: "to read one could wait for ever; put files in their places",
    NO_NAMES: "no folder can hold such; copy them to other names",
}
OTHER_REMEDY = "no suffix of an image; rename or convert what is one"


class Scan(NamedTuple):
    """What is below a folder.

    Attributes:
        files: the images, as sorted paths relative to it.
        folders: each folder's time of change, by its relative path ("" is itself).
        suffixes: how many other files there are, by suffix.
        excluded: how many files and folders each pattern kept out.
        unreadable: folders that could not be listed, and why.
    """

    files: list[str]
    folders: dict[str, int]
    suffixes: dict[str, int]
    excluded: dict[str, int]
    unreadable: dict[str, str]


@dataclass
class Sieve:
    """Which files of folders and lists count, and a memory of what did not.

    Attributes:
        exclude: patterns as of `fnmatch`, each for names or paths below the root, in
            any case.
        unreadable: what a folder that cannot be listed means: "refuse" or "skip".
        remarks: lines about what was passed over so far.
    """

    exclude: Sequence[str]
    unreadable: str
    remarks: list[str] = field(default_factory=list)

    def remember(self, folder: Path, found: Scan) -> None:
        """Add lines about what a scan has passed over."""
        lines = [
            f"{count} {suffix}: {REMEDIES.get(suffix, OTHER_REMEDY)}"
            for suffix, count in _largest_first(found.suffixes)[:SUFFIXES_NAMED]
        ]
        rest = _largest_first(found.suffixes)[SUFFIXES_NAMED:]
        if rest:
            total = sum(count for _, count in rest)
            lines.append(f"{total} of {len(rest)} other suffixes: {OTHER_REMEDY}")
        lines += [
            f"{count} {pattern} (data.exclude)"
            for pattern, count in _largest_first(found.excluded)
        ]
        lines += [
            f"the folder {name!r}, which cannot be listed: {reason}; make it readable"
            for name, reason in found.unreadable.items()
        ]
        lines += [
            f"the folder {name!r}: no image in it; remove it, or convert what it holds"
            for name in empty_folders(found)
        ]
        self.add(folder, lines)

    def add(self, place: Path, lines: Sequence[str]) -> None:
        """Add lines about a folder or a list file."""
        self.remarks += [f"{place}: passed over {line}" for line in lines]


def empty_folders(found: Scan) -> list[str]:
    """The folders at the top that have no image anywhere below them."""
    tops = {name.split("/")[0] for name in found.folders if name}
    return sorted(tops - {file.split("/")[0] for file in found.files if "/" in file})


def first_names(folder: Path, count: int = 5) -> str:
    """The names of some files below a folder, for an error about what there is."""
    names = []
    if isinstance(folder, BucketPath):
        names = folder.files_below()
    for base, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        names += [os.path.relpath(f"{base}/{name}", folder) for name in sorted(files)]
        if len(names) >= count:
            break
    return ", ".join(map(printable, names[:count])) or "no files at all"


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def scan(folder: Path, sieve: Sieve) -> Scan:
    """The images below a folder, and what else there is.

    Links to folders are followed, unless they lead back to a folder that they are in.

    Args:
        folder: where to look.
        sieve: what is kept out, and what a folder that cannot be listed means.

    Raises:
        InputError: a folder cannot be listed; where `sieve` skips such ones, only
            `folder` itself matters. Or links lead to one in too many ways.
    """
    suffixes, is_excluded = image_suffixes(), _matcher(sieve.exclude)
    found = Scan([], {}, Counter(), Counter(), {})
    if isinstance(folder, BucketPath) and (strange := folder.strange_below()):
        found.suffixes[NO_NAMES] = strange
    # Each with the folders it is in: real ones, since links can lead in circles.
    waiting: list[tuple[str, frozenset[Identity]]] = [("", frozenset())]
    ways: Counter[Identity] = Counter()
    while waiting:
        relative, above = waiting.pop()
        try:
            identity, mtime_ns, listed = _entries(folder / relative)
        except OSError as error:
            if relative and sieve.unreadable == "skip":
                found.unreadable[relative] = error.strerror or str(error)
                continue
            raise InputError(
                f"{printable(str(folder / relative))}: listing the folder failed: "
                f"{error}; make it readable, move it out of the data set, or name it "
                "in data.exclude"
            ) from error
        if identity in above:
            continue
        ways[identity] += 1
        if ways[identity] > MAX_WAYS:
            raise InputError(
                f"{printable(str(folder / relative))}: links lead to this folder in "
                f"more than {MAX_WAYS} ways; remove some, or name them in data.exclude"
            )
        found.folders[relative] = mtime_ns
        for name, is_folder, is_special in listed:
            path = f"{relative}/{name}" if relative else name
            pattern = is_excluded(name, path)
            if pattern is not None:
                found.excluded[pattern] += 1
            elif is_folder:
                waiting.append((path, above | {identity}))
            elif is_special:
                found.suffixes[NO_FILES] += 1
            elif name.lower().endswith(suffixes):
                found.files.append(path)
            else:
                found.suffixes[_suffix(name)] += 1
    found.files.sort()
    return found


# What links to one folder have in common.
Identity = tuple[int | str, int]


def _entries(folder: Path) -> tuple[Identity, int, list[tuple[str, bool, bool]]]:
    """Which folder it is, when it changed, and what is in it.

    Of each entry its name, and whether it is a folder, or neither folder nor file.
    """
    if isinstance(folder, BucketPath):
        inside = folder.folder()
        entries = [(name, True, False) for name in inside.folders]
        return (str(folder), 0), 0, entries + [(n, False, False) for n in inside.names]
    status = os.stat(folder)
    with os.scandir(folder) as entries:
        listed = [
            (entry.name, _is_folder(entry), _is_special(entry)) for entry in entries
        ]
    return (status.st_dev, status.st_ino), status.st_mtime_ns, listed


def _suffix(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    return suffix if SUFFIX.fullmatch(suffix) else NO_SUFFIX


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether a name is that of neither a file nor a folder nor a link.

    The folder's own list tells, without a question for each file to the storage.
    """
    try:
        return not (
            entry.is_symlink()
            or entry.is_file(follow_symlinks=False)
            or entry.is_dir(follow_symlinks=False)
        )
    except OSError:
        return False  # gone by now: reading it says so


def _matcher(exclude: Sequence[str]):
    """(name, path) -> the pattern that keeps it out, or None."""
    if not exclude:
        return lambda name, path: None
    each = [fnmatch.translate(pattern.lower()) for pattern in exclude]
    any_of_them = re.compile("|".join(each))
    one_by_one = [re.compile(pattern) for pattern in each]

    def match(name: str, path: str) -> str | None:
        name, path = name.lower(), path.lower()
        if not (any_of_them.match(name) or any_of_them.match(path)):
            return None
        for pattern, compiled in zip(exclude, one_by_one, strict=True):
            if compiled.match(name) or compiled.match(path):
                return pattern
        return None

    return match
