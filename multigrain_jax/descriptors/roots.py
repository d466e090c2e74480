"""Folders that the images of descriptors are below, and images that were moved."""

import itertools
import os
from collections.abc import Iterable, Sequence

from multigrain_jax.data.bucket_paths import ADDRESSES, as_path
from multigrain_jax.data.sources.shards import FILE_ENDS
from multigrain_jax.descriptors.folder import OUTDATED, ImageStamp, IndexRow
from multigrain_jax.errors import printable

# So many images of a folder are looked for to tell whether it is still there.
SAMPLE = 50


def is_below(path: str, root: str) -> bool:
    """Whether a path leads into a folder, by its words alone."""
    return path.startswith(root.rstrip("/") + "/")


def with_root(roots: Sequence[str], root: str) -> tuple[str, ...]:
    """The folders with one more, which takes the place of those below it."""
    if any(root == known or is_below(root, known) for known in roots):
        return tuple(roots)
    return (*(known for known in roots if not is_below(known, root)), root)


def rebased(path: str, old: str, new: str) -> str:
    """A path below `old` as it is below `new`; others as they are."""
    if not is_below(path, old):
        return path
    return new.rstrip("/") + path[len(old.rstrip("/")) :]


def moved_rows(
    rows: Sequence[IndexRow],
    roots: Sequence[str],
    images: Sequence[ImageStamp],
    root: str,
) -> list[IndexRow] | None:
    """The rows with the paths that their images have now; None where none has moved.

    Images of one of the other folders were moved where none of its files is there any
    more, and most of them have the same relative path, size and time below `root`.

    Args:
        rows: what is known.
        roots: folders that its images were below.
        images: those that are there now.
        root: the folder that they are below.
    """
    stamps = [row.image for row in rows if row.status not in OUTDATED]
    now = {image.path: image[1:] for image in images}
    for old in roots:
        if old == root:
            continue
        own = [image for image in stamps if is_below(image.path, old)]
        kept = sum(now.get(rebased(i.path, old, root)) == i[1:] for i in own)
        if 2 * kept > len(own) and not _any_is_there(image.path for image in own):
            print(printable(f"{kept} images of {old} are now in {root}"), flush=True)
            return [
                row._replace(
                    image=row.image._replace(path=rebased(row.image.path, old, root))
                )
                for row in rows
            ]
    return None


def old_root(roots: Sequence[str], paths: Iterable[str], new: str) -> str | None:
    """The one of `roots` whose images are found below `new`; of several the first.

    Args:
        roots: where the images were.
        paths: of all images.
        new: the folder that they were moved to.
    """
    waiting = {root: SAMPLE for root in roots}
    for path in paths:
        for root, left in list(waiting.items()):
            if not is_below(path, root):
                continue
            if _is_there(rebased(path, root, new)):
                return root
            waiting[root] = left - 1
            if not waiting[root]:
                del waiting[root]
        if not waiting:
            break
    return None


def identity_of(path: str) -> tuple[int, int] | str:
    """What links to one file have in common: device and inode, or the real path."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path) if os.path.isabs(path) else path
    return found.st_dev, found.st_ino


def _any_is_there(paths: Iterable[str]) -> bool:
    return any(map(_is_there, itertools.islice(paths, SAMPLE)))


def _is_there(path: str) -> bool:
    """Whether there is such a photo, or the large file that it was packed in."""
    if not path.startswith(ADDRESSES) and os.path.exists(path):
        return True
    large = (path[: found.end()] for found in FILE_ENDS.finditer(path))
    return any(as_path(file).is_file() for file in (path, *large))
