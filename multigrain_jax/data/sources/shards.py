"""Data sets that lie in large files: which of them there are, and of which part."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from multigrain_jax.data.bucket_paths import BucketPath, as_path, list_names
from multigrain_jax.data.sources.folder import PARTS, TRAIN, no_such_split
from multigrain_jax.data.sources.scan import MAX_WAYS
from multigrain_jax.errors import InputError, printable

WORD = re.compile(r"[A-Za-z]+")
# In the path of a photo that is packed, where the name of its large file may end.
FILE_ENDS = re.compile(r"\.parquet(?=#\d+$)|\.tar(?=/)", re.IGNORECASE)
FILES_NAMED = 5
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def find_shards(
    root: str, split: str | None, *, suffix: str, exclude: Sequence[str]
) -> list[str]:
    """The files of a part, in the order of their paths.

    A file is of the part that the lowest folder called like one names, as train/ does,
    and else of the last such word in its own name: `train-00000-of-00294.parquet`,
    `imagenet1k-validation-07.tar`. Where no path names a part, all are "train".

    Args:
        root: the folder that they are in, or below; or one file. Of this machine, or
            the address of a bucket's.
        split: the part; None: all files.
        suffix: how their names end.
        exclude: patterns of names and paths that are passed over.

    Raises:
        InputError: nothing there, or nothing of that part.
    """
    base, found = _list(root, suffix, exclude)
    if not found:
        raise InputError(
            f"{root}: no *{suffix} files in it or its subfolders, found "
            f"{_listing(root)}; give the folder that holds them, or another data.source"
        )
    chosen = [name for name in found if split is None or is_of_part(name, split)]
    if chosen:
        if split is not None and len(chosen) < len(found):
            print(f"{root}: {len(chosen)} of {len(found)} files are taken as {split!r}")
        return [os.path.join(base, name) for name in chosen]
    parts = Counter(part for name in found if (part := part_of(name)))
    if parts:
        listed = ", ".join(f"{part!r} ({count} files)" for part, count in parts.items())
        raise InputError(
            f"{root}: split {split!r} was expected among the names of {len(found)} "
            f"*{suffix} files, found {listed}; set the split to one of these, or to "
            "None for all files"
        )
    if PARTS.get(str(split).lower()) != TRAIN:
        raise no_such_split(root, str(split))
    print(f"{root}: no file names a part; all {len(found)} are taken as {split!r}")
    return [os.path.join(base, name) for name in found]


def photos_of_part(
    root: str,
    split: str | None,
    *,
    suffix: str,
    separator: str,
    exclude: Sequence[str],
) -> Callable[[str], bool]:
    """Whether a photo is of a part of these files, or was before its file was removed.

    Args:
        root: as of `find_shards`.
        split: the part.
        suffix: how the names of the files end.
        separator: what stands between the name of a file and that of a photo in it.
        exclude: as of `find_shards`.

    Returns:
        A function of the photo's path.
    """
    base, found = _list(root, suffix, exclude)
    has_parts, above = any(map(part_of, found)), os.path.join(base, "")
    names = None if base == root else found  # of a root that is a file
    ends = re.compile(re.escape(f"{suffix}{separator}"), re.IGNORECASE)

    def is_of_it(path: str) -> bool:
        # Another folder's name may begin like this one's, or end like a file's.
        ended = ends.search(path, len(above)) if path.startswith(above) else None
        if ended is None or ended.end() == len(path):
            return False
        relative = path[len(above) : ended.start() + len(suffix)]
        if names is not None and relative not in names:
            return False
        return split is None or not has_parts or is_of_part(relative, split)

    return is_of_it


def part_of(path: str) -> str | None:
    """The part that a path below the root names: train, val or test; None: none."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if folder.lower() in PARTS:
            return PARTS[folder.lower()]
    words = [word.lower() for word in WORD.findall(name.partition(".")[0])]
    return next((PARTS[word] for word in reversed(words) if word in PARTS), None)


def is_of_part(path: str, split: str) -> bool:
    """Whether a path below the root names a part, by any of its names.

    Args:
        path: relative, with slashes.
        split: one of the usual parts, or a word of names that is none of them.
    """
    if split.lower() in PARTS:
        return part_of(path) == PARTS[split.lower()]
    pattern = rf"(?:^|[^A-Za-z0-9]){re.escape(split)}(?:[^A-Za-z0-9]|$)"
    return re.search(pattern, path) is not None


def _list(root: str, suffix: str, exclude: Sequence[str]) -> tuple[str, list[str]]:
    """The folder, and the sorted paths below it of all files."""
    path = as_path(root)
    if path.is_file():
        _require_suffix(root, suffix)
        return os.path.dirname(root) or ".", [os.path.basename(root)]
    patterns = [pattern.lower() for pattern in exclude]
    if isinstance(path, BucketPath) and path.is_dir():
        names = [n for n in path.files_below() if not _is_excluded(n, patterns)]
        return root, sorted(name for name in names if _is_shard(root, name, suffix))
    if path.is_dir():
        return root, sorted(_below(root, suffix, patterns))
    raise InputError(
        f"data.root: {root} was expected to be a folder of *{suffix} files, or one of "
        "them, found nothing; give it with --config.data.root=PATH"
    )


def _is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern is that of a relative path, or of a name or folder in it."""
    parts = path.lower().split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        fnmatch.fnmatchcase(text, pattern)
        for pattern in patterns
        for text in (*parts, *above)
    )


def _is_shard(root: str, path: str, suffix: str) -> bool:
    """Whether a file is one of those by its name; among tars, compressed is refused."""
    if suffix == ".tar" and path.lower().endswith(COMPRESSED):
        _require_suffix(f"{root}/{path}", suffix)
    return path.lower().endswith(suffix)


def _below(root: str, suffix: str, patterns: Sequence[str]) -> Iterator[str]:
    """The files below a folder whose names end so, as relative paths.

    Links are followed, but for those that lead back to a folder that they are in.
    """
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    ways: Counter[tuple[int, int]] = Counter()
    while waiting:
        relative, above = waiting.pop()
        folder = os.path.join(root, relative)
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                listed = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError as error:
            raise InputError(
                f"{printable(folder)}: listing the folder failed: {error}; make it "
                "readable, or name it in data.exclude"
            ) from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        ways[identity] += 1
        if ways[identity] > MAX_WAYS:
            raise InputError(
                f"{printable(folder)}: links lead to this folder in more than "
                f"{MAX_WAYS} ways; remove some, or name them in data.exclude"
            )
        for name, is_folder in listed:
            path = f"{relative}/{name}" if relative else name
            if _is_excluded(path, patterns):
                continue
            if is_folder:
                waiting.append((path, above | {identity}))
            elif _is_shard(root, path, suffix):
                yield path


def _require_suffix(path: str, suffix: str) -> None:
    """Refuse a compressed tar, whose members cannot be read one by one."""
    if suffix == ".tar" and path.lower().endswith(COMPRESSED):
        raise InputError(
            f"{printable(path)}: a compressed tar was found, and a plain .tar was "
            "expected, of which photos are read in any order; unpack it (gunzip, zstd "
            "-d, …): photos hardly become smaller"
        )
    if not path.lower().endswith(suffix):
        raise InputError(
            f"data.root: found {printable(path)}, expected a folder of *{suffix} files "
            "or one of them; choose another root, or another data.source"
        )


def _listing(root: str) -> str:
    names = sorted(list_names(as_path(root)))
    more = len(names) - FILES_NAMED
    listed = ", ".join(map(printable, names[:FILES_NAMED]))
    return (listed or "nothing") + (f" and {more} more" if more > 0 else "")
