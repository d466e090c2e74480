"""Where images come from: a folder, ImageNet, TFDS, large files, the quick start's.

A source is a numbered set of encoded images with labels. It is picklable, since the
loader's reading processes receive it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from multigrain_jax.data.bucket_paths import BucketPath, as_path
from multigrain_jax.data.bucket_tree import Stamp
from multigrain_jax.data.cache import LocalCache
from multigrain_jax.data.decoding import Decoding
from multigrain_jax.data.sources.files import FileSource
from multigrain_jax.data.sources.folder import (
    TRAIN,
    VAL,
    ImageFile,
    has_validation_folder,
    has_validation_list,
    hold_out,
    index_folder,
    list_of_split,
    read_list_file,
    split_folders,
)
from multigrain_jax.data.sources.imagenet import imagenet_files
from multigrain_jax.data.sources.packed import PackedSource
from multigrain_jax.data.sources.parquet import PARQUET
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.sources.tfds import TfdsSource
from multigrain_jax.data.sources.tfrecord import TfrecordSource, is_tfrecord
from multigrain_jax.data.sources.webdataset import WEBDATASET
from multigrain_jax.errors import InputError

LISTED_CLASSES = 10
PACKED = {form.kind: form for form in (PARQUET, WEBDATASET)}
SOURCES = ("folder", "imagenet", "tfds", "quickstart", *PACKED)


class Subset(ImageSource):
    """The chosen images of another source, in the given order."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | np.ndarray):
        """Choose `indices` of `source`."""
        self._source = source
        self._indices = np.asarray(indices, np.int64)
        self.labels = source.labels[self._indices]
        self.class_names = source.class_names
        self.decoding = source.decoding
        self.remarks = source.remarks
        if source.instances is not None:
            self.instances = source.instances[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        return self._source.read(int(self._indices[index]))

    def open(self, index: int) -> BinaryIO:
        """One image's encoded bytes as an open file."""
        return self._source.open(int(self._indices[index]))

    def describe(self, index: int) -> str:
        """Where one image is."""
        return self._source.describe(int(self._indices[index]))

    def stamp(self, index: int) -> Stamp | None:
        """Size and time of change of one image."""
        return self._source.stamp(int(self._indices[index]))


def open_source(
    *,
    source: str,
    root: str | Path | None,
    split: str | None,
    list_file: str | Path | None,
    val_fraction: float,
    num_images: int | None,
    local_cache_dir: str | Path | LocalCache | None,
    decoding: Decoding,
    exclude: Sequence[str],
    unreadable_folders: str,
    instances: str | None,
    class_names: Sequence[str] | None = None,
) -> ImageSource:
    """Open a set of images.

    Args:
        source: "folder" (`root/split/class/…`, or `root/class/…` where there are no
            folders of splits), "imagenet" (ImageNet's own layouts), "tfds" (a
            prepared data set's folder), "parquet", "webdataset" (large files, as
            `find_shards` finds them) or "quickstart".
        root: the folder, of this machine or a bucket; not needed for "quickstart".
        split: which part.
        list_file: only these files of a folder; one path a line, relative to root, and
            where the first folder is not the class, a tab and the class; behind another
            tab the instance. A folder of lists has one for each split: train.txt,
            val.txt. None: all files.
        val_fraction: where a folder or a list has no part for validation, this share
            of each class is the split "val" and the rest is "train", as `hold_out`
            chooses; 0 holds nothing out.
        num_images: only so many images, evenly spread over the set; None: all.
        local_cache_dir: files are copied here when they are first read, as `FileSource`
            has it; None: not.
        decoding: how its photos become pixels.
        exclude: patterns of names and paths that are passed over.
        unreadable_folders: what a folder that cannot be listed means, as `Sieve` says.
        instances: of "folder": what names the known instances, as of `name_instance`.
        class_names: number the labels like these (the training set's); None numbers
            the classes that are found, in sorted order.

    Raises:
        InputError: nothing there, nothing in it, or a class that is not among
            `class_names`; the message says what was found.
    """
    opened: ImageSource
    sieve = Sieve(exclude, unreadable_folders)
    if source == "quickstart":
        opened = QuickstartSource(split or "train")
    elif root is None:
        raise InputError(
            f"data.root: found nothing, expected the folder of source {source!r}; give "
            "it with --config.data.root=DIR"
        )
    elif source in ("folder", "imagenet"):
        root = _photo_folder(root)
        if source == "imagenet":
            files, names = imagenet_files(root, split=split or TRAIN, sieve=sieve)
        else:
            files, names = _list_folder(
                root, split, list_file, val_fraction, sieve, instances
            )
        opened = FileSource(
            files,
            class_names=names,
            decoding=decoding,
            remarks=sieve.remarks,
            local_cache_dir=local_cache_dir,
        )
    elif source == "tfds":
        folder = _local_folder(root)
        kind = TfrecordSource if is_tfrecord(folder) else TfdsSource
        opened = kind(folder, split or "train")
    elif source in PACKED:
        opened = _open_packed(root, split, source, exclude, local_cache_dir)
    else:
        raise InputError(
            f"data.source: found {source!r}, expected one of {', '.join(SOURCES)}"
        )
    opened.decoding = decoding
    if class_names is not None and list(class_names) != list(opened.class_names):
        opened = _renumber(opened, class_names)
    if num_images is not None and num_images < len(opened):
        indices = np.linspace(0, len(opened) - 1, num_images).astype(np.int64)
        return Subset(opened, indices)
    return opened


def _open_packed(
    root: str | Path,
    split: str | None,
    kind: str,
    exclude: Sequence[str],
    local_cache_dir: str | Path | LocalCache | None,
) -> PackedSource:
    return PackedSource(
        str(as_path(root)),
        split,
        form=PACKED[kind],
        exclude=exclude,
        local_cache_dir=local_cache_dir,
    )


def _photo_folder(root: str | Path) -> Path:
    """A folder of photos; of a bucket it is listed here."""
    path = as_path(root)
    if isinstance(path, BucketPath) and not path.is_dir():
        raise InputError(
            f"data.root: {path} was expected to be a folder, found "
            f"{'an object' if path.is_file() else 'nothing below it'}; give it with "
            "--config.data.root=DIR"
        )
    return path


def _local_folder(root: str | Path) -> Path:
    """A folder that is read by a library that knows no buckets."""
    path = as_path(root)
    if isinstance(path, BucketPath):
        raise InputError(
            f"data.root: found {path} with data.source = 'tfds', which is read from a "
            "disk; expected a folder of this machine: copy or mount it, or keep the "
            "images in a bucket as files"
        )
    return path


@dataclass(frozen=True)
class DataSet:
    """Where images are and which of them count; `open_source` says what each means."""

    source: str
    root: str | None
    list_file: str | None
    val_fraction: float
    num_images: int | None
    local_cache_dir: str | Path | LocalCache | None
    decoding: Decoding
    exclude: tuple[str, ...]
    unreadable_folders: str
    instances: str | None


def open_split(
    data_set: DataSet, split: str | None, class_names: Sequence[str] | None = None
) -> ImageSource:
    """A part of a data set, as `open_source` opens it.

    Args:
        data_set: where the images are.
        split: which part.
        class_names: number the labels like these (the training set's); None numbers
            the classes that are found.
    """
    # Not asdict, which takes the decoding apart too.
    return open_source(**vars(data_set), split=split, class_names=class_names)


def _list_folder(
    root: Path,
    split: str | None,
    list_file: str | Path | None,
    val_fraction: float,
    sieve: Sieve,
    instances: str | None,
) -> tuple[list[ImageFile], list[str]]:
    """The images of a folder or of a list file that belong to a split."""
    lists = None if list_file is None else as_path(list_file)
    has_val = (
        has_validation_folder(root) if lists is None else has_validation_list(lists)
    )
    parted = val_fraction > 0 and split in (TRAIN, VAL) and not has_val
    if lists is not None:
        path = list_of_split(lists, TRAIN if parted else split)
        files, names = read_list_file(path, root=root, sieve=sieve, instances=instances)
    elif parted:
        # A folder of tests beside the images is not to become a class.
        has_parts = bool(split_folders(root))
        part = TRAIN if has_parts else None
        files, names = index_folder(root, split=part, sieve=sieve, instances=instances)
    else:
        return index_folder(root, split=split, sieve=sieve, instances=instances)
    if parted:
        # The same on every machine and in every task.
        wanted = hold_out(files, val_fraction, root=root) == (split == VAL)
        files = [file for file, keep in zip(files, wanted, strict=True) if keep]
        if not files:
            raise InputError(
                f"{root}: of every class there is one image, so that data.val_fraction "
                f"= {val_fraction} leaves none for {split!r}; give more images, or "
                "--config.data.val_split=None and --config.report_split=None"
            )
        print(f"{root}: {len(files)} images are taken as {split!r}, by their names")
    return files, names


def class_statistics(source: ImageSource) -> str:
    """How many images and classes there are, for people to check at a glance."""
    counts = np.bincount(source.labels[source.labels >= 0])
    labelled, unlabelled = int(counts.sum()), int((source.labels < 0).sum())
    text = f"{len(source)} images"
    if labelled:
        found = np.flatnonzero(counts)
        few = found[counts[found].argmin()]
        many = found[counts[found].argmax()]
        each = str(counts[few])
        if counts[few] < counts[many]:
            smallest, largest = source.class_names[few], source.class_names[many]
            each += f" (of {smallest!r}) to {counts[many]} (of {largest!r})"
        text += f" of {len(found)} classes, {each} of each"
    return text + (f"; {unlabelled} without a label" if unlabelled else "")


def class_listing(source: ImageSource) -> str:
    """The names of the first classes, for people to check at a glance."""
    names = [repr(name) for name in source.class_names[:LISTED_CLASSES]]
    more = len(source.class_names) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def absent_classes(source: ImageSource) -> list[str]:
    """The classes of which a set has no image."""
    found = np.unique(source.labels[source.labels >= 0])
    return np.delete(np.array(source.class_names, object), found).tolist()


def _renumber(source: ImageSource, class_names: Sequence[str]) -> Subset:
    """The same images, with labels that index `class_names`."""
    strangers = sorted(set(source.class_names) - set(class_names))
    if strangers:
        raise InputError(
            f"{len(strangers)} classes of the images such as {strangers[:10]} are not "
            f"among the {len(class_names)} of training, {list(class_names[:3])} …; "
            "name the folders as they were named then, or leave these out"
        )
    numbers = {name: label for label, name in enumerate(class_names)}
    # The last entry is that of the label -1.
    table = np.array([*(numbers[name] for name in source.class_names), -1], np.int32)
    renumbered = Subset(source, np.arange(len(source)))
    renumbered.labels = table[source.labels]
    renumbered.class_names = list(class_names)
    return renumbered
