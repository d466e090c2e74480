"""A data set that TFDS prepared as TFRecord files, read without TensorFlow."""

import json
import os
import struct
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.data.cache import kept_labels
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.sources.varint import read_varint
from multigrain_jax.errors import InputError, printable
from multigrain_jax.files import MAX_TEXT_BYTES, read_json, read_small

# A record: its length (8 bytes), 4 bytes of checksum, the data, 4 bytes of checksum.
HEADER, FOOTER = 12, 4
INFO_FILE = "dataset_info.json"
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Shard(NamedTuple):
    """One file, and the number of its first image in the whole split."""

    path: str
    first: int
    length: int


def is_tfrecord(folder: str | Path) -> bool:
    """Whether a prepared data set's folder says that it is in TFRecord files."""
    try:
        return _read_info(Path(folder)).get("fileFormat") == "tfrecord"
    except InputError:
        return False


class TfrecordSource(ImageSource):
    """A split of a prepared data set in TFRecord files.

    Images are numbered in the order of the files. The labels stand in the same records,
    so listing them reads everything; of a large set they are kept for the next time.
    """

    decoding = PLAIN

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        image_key: str = "image",
        label_key: str = "label",
    ):
        """Open a prepared data set.

        Args:
            folder: the prepared version's folder, `…/name/1.0.0`.
            split: a split's name; not a slice of one.
            image_key: the feature that holds the encoded image.
            label_key: the feature that holds the label, a ClassLabel.

        Raises:
            InputError: no such data set, split, file or list of classes.
        """
        self.image_key, self.label_key = image_key, label_key
        root = Path(folder)
        info = _read_info(root)
        self.shards = _find_shards(root, info, split)
        self._folder, self._split = str(folder), split
        self._fingerprint = json.dumps(info, sort_keys=True)
        names = root / f"{label_key}.labels.txt"
        if not names.is_file():
            raise InputError(
                f"{names}: not found; it is expected to list the classes, as TFDS "
                "writes it for a ClassLabel: copy it from the prepared data set"
            )
        text = read_small(names, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
        self.class_names = text.split("\n")
        self.class_names = [name for name in self.class_names if name]
        self._firsts = np.array([shard.first for shard in self.shards])

    def __len__(self) -> int:
        return self.shards[-1].first + self.shards[-1].length

    @cached_property
    def labels(self) -> np.ndarray:
        """The label of every image, int32 [N]."""
        key = (self._folder, self._split, self.label_key, self._fingerprint)
        return kept_labels(key, len(self), self._read_labels)

    def _read_labels(self) -> np.ndarray:
        return np.array([self._label(i) for i in range(len(self))], np.int32)

    def _label(self, index: int) -> int:
        try:
            label = self._features(index)[self.label_key]
        except OSError as error:
            raise InputError(
                f"{self.describe(index)}: reading the label failed: {error}; copy the "
                "file again"
            ) from error
        if not isinstance(label, int) or not 0 <= label < len(self.class_names):
            raise InputError(
                f"{self.describe(index)}: the label {str(label)[:40]} was found, a "
                f"number of the {len(self.class_names)} classes expected; copy the "
                "file again"
            )
        return label

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError if its record is damaged."""
        data = self._features(index)[self.image_key]
        if not isinstance(data, bytes):
            raise OSError("damaged record: a number in the image's place")
        return data

    def describe(self, index: int) -> str:
        """The file and the number of the record in it."""
        shard = self._shard_of(index)
        return f"{shard.path} record {index - shard.first}"

    def _shard_of(self, index: int) -> Shard:
        return self.shards[np.searchsorted(self._firsts, index, side="right") - 1]

    def _features(self, index: int) -> dict[str, Any]:
        shard = self._shard_of(index)
        offset, length = _places(shard)[index - shard.first]
        with open(shard.path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
        try:
            features = parse_example(data)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise OSError(f"damaged record: {error}") from error
        missing = {self.image_key, self.label_key} - features.keys()
        if missing:
            raise InputError(
                f"{self.describe(index)}: features {sorted(missing)} were expected, "
                f"found {sorted(features)}; prepare the data set with these names"
            )
        return features


def _read_info(root: Path) -> dict[str, Any]:
    try:
        info = read_json(root / INFO_FILE)
        if not isinstance(info, dict):
            raise ValueError(f"{str(info)[:40]} is no object")
        return info
    except (OSError, ValueError) as error:
        raise InputError(
            f"{root}: the folder of a version prepared by TFDS was expected, with "
            f"{INFO_FILE} in it, and reading that failed: {error}; give the version's "
            "folder as data.root"
        ) from error


def _find_shards(root: Path, info: dict[str, Any], split: str) -> list[Shard]:
    try:
        splits = {row["name"]: row for row in info.get("splits", [])}
        all_lengths = {
            name: [int(length) for length in row["shardLengths"]]
            for name, row in splits.items()
        }
        dataset = str(info["name"])
        templates = {
            name: str(row.get("filepathTemplate", DEFAULT_TEMPLATE))
            for name, row in splits.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{root / INFO_FILE}: names, and the numbers of images of each file were "
            f"expected, and reading them failed: {error!r}; copy it again"
        ) from error
    if split not in splits:
        raise InputError(
            f"{root}: split {split!r} was expected, found "
            f"{', '.join(map(printable, splits)) or 'none'}; slices such as "
            "'train[:10%]' need the array_record format"
        )
    lengths = all_lengths[split]
    shards, first = [], 0
    for number, length in enumerate(lengths):
        name = (
            templates[split]
            .replace("{DATASET}", dataset)
            .replace("{SPLIT}", split)
            .replace("{FILEFORMAT}", "tfrecord")
            .replace("{SHARD_X_OF_Y}", f"{number:05d}-of-{len(lengths):05d}")
        )
        if not (root / name).is_file():
            raise InputError(f"{root / name}: not found; copy the whole data set")
        shards.append(Shard(str(root / name), first, length))
        first += length
    return shards


@lru_cache(maxsize=64)
def _places(shard: Shard) -> list[tuple[int, int]]:
    """Offset and length of every record of a file."""
    places, offset = [], 0
    with open(shard.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while header := file.read(HEADER):
            if len(header) < HEADER:
                break
            (length,) = struct.unpack("<Q", header[:8])
            start, offset = offset + HEADER, offset + HEADER + length + FOOTER
            if offset > size:
                break
            places.append((start, length))
            file.seek(offset)
    if len(places) != shard.length:
        raise InputError(
            f"{shard.path}: {shard.length} records were expected, found {len(places)}; "
            "copy the file again"
        )
    return places


def parse_example(data: bytes) -> dict[str, Any]:
    """The features of a `tf.train.Example` that hold one value of bytes or integers.

    Example { Features features = 1 { map<string, Feature> feature = 1 } }, Feature
    { BytesList 1 | FloatList 2 | Int64List 3 }, each list with its values as field 1.
    """
    features: dict[str, Any] = {}
    for _, example in _fields(data):
        for _, entry in _fields(example):
            parts = dict(_fields(entry))
            name = parts[1].decode()
            for kind, values in _fields(parts.get(2, b"")):
                found = [value for _, value in _fields(values)]
                if not found or kind == 2:
                    continue
                first = found[0]
                if kind == 3 and isinstance(first, bytes):  # packed
                    first = read_varint(first, 0)[0]
                features[name] = first
    return features


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protocol buffer message."""
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        if tag & 7 == 0:
            value, position = read_varint(data, position)
        else:
            width = {1: 8, 5: 4}.get(tag & 7)
            if width is None:
                width, position = read_varint(data, position)
            value = data[position : position + width]
            position += width
        yield tag >> 3, value
