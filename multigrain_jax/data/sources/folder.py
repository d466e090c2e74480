"""Lists the images of a folder, once, and remembers the list."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.bucket_paths import BucketPath, list_names
from multigrain_jax.data.cache import KEPT_FROM, cache_folder, write_whole
from multigrain_jax.data.image_file import image_suffixes
from multigrain_jax.data.sources.instances import LIST, name_instance
from multigrain_jax.data.sources.list_lines import check_repeated, read_list_lines
from multigrain_jax.data.sources.scan import Scan, Sieve, first_names, scan
from multigrain_jax.errors import InputError, printable

UNLABELLED = -1
# Where a folder of images stands for these two, a share of it is held out as `val`.
TRAIN, VAL, TEST = "train", "val", "test"
# How folders of parts are named, in any case -> which part that is.
PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}
VAL_NAMES = tuple(name for name, part in PARTS.items() if part == VAL)
# These count whatever lies beside them; the others may be names of classes.
PLAIN_NAMES = ("train", "val", "valid", "validation", "test")


class ImageFile(NamedTuple):
    """A file, its label (-1: none), and its instance (None: one of its own)."""

    path: str
    label: int
    instance: str | None = None


def index_folder(
    root: Path,
    *,
    split: str | None,
    sieve: Sieve,
    instances: str | None,
    key: str = "data.root",
) -> tuple[list[ImageFile], list[str]]:
    """The images of a class-per-subfolder data set, in sorted order.

    Args:
        root: the data set's folder.
        split: its subfolder, by its own name or by another usual one for the same
            part; None: `root` itself. Where `root` has no folders of parts, "train" is
            `root` itself too.
        sieve: what is kept out; it remembers what was passed over.
        instances: which level of folders names them, as of `name_instance`.
        key: the key of a configuration that names `root`, for errors.

    Returns:
        The files with labels, and the class names. A folder with images and no
        subfolders is one unlabelled set.

    Raises:
        InputError: no folder, no such part, or no images in it.
    """
    folder = _split_folder(root, split, key)
    found = _cached_listing(folder, sieve)
    sieve.remember(folder, found)
    files = found.files
    if not files:
        # Of photos beside those of a data set, nobody asks for the classes.
        expected = "photos"
        if key == "data.root":
            expected += ", in one subfolder per class where classes are of interest"
        raise InputError(
            f"{key}: {folder}: no images ({', '.join(image_suffixes())}) in it or its "
            f"{len(found.folders) - 1} subfolders, expected {expected}; found "
            f"{first_names(folder)}" + "".join(f"\n  {line}" for line in sieve.remarks)
        )
    # A class is a folder at the top; images beside the folders belong to none.
    tops = [file.split("/")[0] if "/" in file else None for file in files]
    class_names = sorted({top for top in tops if top is not None})
    labels = {name: label for label, name in enumerate(class_names)}
    listed = [
        ImageFile(
            f"{folder}/{file}",
            UNLABELLED if top is None else labels[top],
            name_instance(instances, file),
        )
        for file, top in zip(files, tops, strict=True)
    ]
    return listed, class_names


def require_folder(folder: Path, *, key: str, more: str = "") -> None:
    """Refuse what is no folder.

    Args:
        folder: of images.
        key: the key of a configuration that names it.
        more: what else the error is to say.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{key}: {folder} was expected to be a folder, found "
            f"{'a file' if folder.exists() else 'nothing'}; give it with "
            f"--config.{key}=DIR{more}"
        )


def _split_folder(root: Path, split: str | None, key: str) -> Path:
    require_folder(root, key=key)
    if not split:
        return root
    if (root / split).is_dir():
        return root / split
    parts = split_folders(root)
    # Asked for by its plain name, a part may have another of the usual ones.
    chosen = [path for path, part in parts.items() if PARTS.get(split) == part]
    if len(chosen) == 1:
        print(f"{root}: {printable(chosen[0].name)} is taken as {split!r}")
        return chosen[0]
    if parts:
        # Taking root itself would make classes of the other splits.
        names = ", ".join(printable(path.name) for path in chosen or parts)
        raise InputError(
            f"{root}: no folder {split!r}, but {names}; set the split to one of these"
        )
    if split != TRAIN:
        raise no_such_split(f"{root}", split)
    print(f"{root}: no folder {split!r}; all of its images are taken as that split")
    return root


def no_such_split(place: str, split: str) -> InputError:
    """What there is instead, in a folder or list that lies in no parts."""
    return InputError(
        f"{place}: no split {split!r}: it lies in no parts, so that there are "
        f"{TRAIN!r} (all images) and, held out of it by data.val_fraction, {VAL!r}; "
        "set the split to one of these, or to None for all images, or make the parts "
        "(docs/own_data.md)"
    )


def split_folders(root: Path) -> dict[Path, str]:
    """The folders of parts in a data set, and which part each is: train, val or test.

    Their names count in any case. Those that might as well be classes ("Training")
    count where there is a part to train on and another one, or nothing beside them.
    """
    try:
        names = sorted(list_names(root))
    except OSError:
        return {}
    found = {
        root / name: PARTS[name.lower()]
        for name in names
        if name.lower() in PARTS and (root / name).is_dir()
    }
    distinct = set(found.values())
    if found and not (TRAIN in distinct and len(distinct) > 1):
        others = (root / n for n in names if not n.startswith("."))
        if any(path.is_dir() and path not in found for path in others):
            return {p: part for p, part in found.items() if p.name in PLAIN_NAMES}
    return found


def has_validation_folder(root: Path) -> bool:
    """Whether there is a subfolder for validation, by any of its usual names."""
    return VAL in split_folders(root).values()


def has_validation_list(lists: Path) -> bool:
    """Whether `lists` is a folder with a list for validation, by any of its names."""
    return any((lists / f"{name}.txt").is_file() for name in VAL_NAMES)


def list_of_split(lists: Path, split: str | None) -> Path:
    """The list file of a split: `lists` itself, or where that is a folder, one in it.

    Raises:
        InputError: a folder without `split`.txt, or a file, which has no parts.
    """
    if not lists.is_dir():
        if split not in (None, TRAIN):
            raise no_such_split(f"list_file {lists}", split)
        return lists
    path = lists / f"{split}.txt"
    if not path.is_file():
        found = ", ".join(sorted(printable(f.name) for f in lists.glob("*.txt")))
        raise InputError(
            f"list_file {lists}: a folder of lists has one for each split; for split "
            f"{split!r} {path.name} was expected, found {found or 'no .txt file'}; add "
            "it, or set the split to one of these"
        )
    return path


def hold_out(files: Sequence[ImageFile], fraction: float, *, root: Path) -> np.ndarray:
    """Which images are held out for validation: the same ones every time.

    Of each class round(fraction · n), at least one and at most n - 1: those whose
    path below `root` has the smallest digests. So an image changes sides only when its
    class grows or shrinks, and then at most as many do.

    Args:
        files: the images with their labels.
        fraction: the share, in (0, 1).
        root: what the paths are relative to; moving it changes nothing.

    Returns:
        bool [N].
    """
    held_out = np.zeros(len(files), bool)
    by_label: dict[int, list[tuple[bytes, int]]] = {}
    for index, file in enumerate(files):
        name = os.path.relpath(file.path, root).replace(os.sep, "/")
        digest = hashlib.sha256(os.fsencode(name)).digest()
        by_label.setdefault(file.label, []).append((digest, index))
    for members in by_label.values():
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[[index for _, index in sorted(members)[:count]]] = True
    return held_out


def read_list_file(
    path: Path, *, root: Path, sieve: Sieve, instances: str | None
) -> tuple[list[ImageFile], list[str]]:
    """The images that a text file names, one path a line, relative to `root`.

    The class stands behind the path and a tab. Without one it is the first folder of
    the path; paths without a folder are unlabelled. Behind the class and another tab
    may stand the instance; further columns are passed over. Spaces around each of them
    do not count, those inside do. Empty lines and those that begin with # say nothing.
    How many photos are listed more than once is printed.

    Args:
        path: the text file.
        root: the folder that its paths are relative to.
        sieve: remembers what was passed over.
        instances: what names them, as of `name_instance`.

    Raises:
        InputError: no such file, no line in it, no text, a path outside root, or
            instances from the list of which two have the same photo.
    """
    lines = read_list_lines(path, root=root, sieve=sieve)
    check_repeated(path, lines, by_list=instances == LIST)
    tops = [
        line.label or (line.path.split("/")[0] if "/" in line.path else None)
        for line in lines
    ]
    class_names = sorted({top for top in tops if top is not None})
    labels = {name: label for label, name in enumerate(class_names)}
    return [
        ImageFile(
            str(root / line.path),
            UNLABELLED if top is None else labels[top],
            name_instance(instances, line.path, listed=line.instance),
        )
        for line, top in zip(lines, tops, strict=True)
    ], class_names


def _cached_listing(folder: Path, sieve: Sieve) -> Scan:
    """`scan`, from a cached list if no folder changed since it was made."""
    if isinstance(folder, BucketPath):
        return scan(folder, sieve)  # which was listed for this task
    key = (str(folder.absolute()), tuple(sieve.exclude), image_suffixes())
    name = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()
    cache = cache_folder("folders") / f"{name}.json"
    try:
        stored = Scan(**json.loads(cache.read_text()))
        # Adding, removing or renaming a file changes its folder's time.
        if all(
            os.stat(folder / relative).st_mtime_ns == time
            for relative, time in stored.folders.items()
        ):
            return stored
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # no list yet, or one that cannot be trusted: look anew
    found = scan(folder, sieve)
    # A folder may become readable without a change of its time.
    if len(found.files) >= KEPT_FROM and not found.unreadable:
        try:
            write_whole(cache, json.dumps(found._asdict()).encode())
        except OSError:
            print(f"the list of {folder} could not be kept in {cache}")
    return found
