"""Photos that lie packed together in large files: tar shards, Parquet files."""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from multigrain_jax.data import bucket_tree
from multigrain_jax.data.bucket_paths import ADDRESSES, absolute_path
from multigrain_jax.data.cache import LocalCache
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.read_ahead import ReadAhead
from multigrain_jax.data.sources.random_access import Stamp, open_part, read_at
from multigrain_jax.data.sources.shard_index import (
    ABSENT,
    PLACE,
    ShardIndex,
    index_shards,
)
from multigrain_jax.data.sources.shard_labels import number_labels, read_class_names
from multigrain_jax.data.sources.shards import find_shards, photos_of_part
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name

# Most headers of photos end before.
HEADER_BYTES = 16 << 10
# Reading so many times the size of a photo, and so much, is worth a warning.
MUCH_MORE, MUCH_BYTES = 4, 1e6


class Format(NamedTuple):
    """How files of one kind are read.

    Attributes:
        kind: a word for it.
        suffix: how their names end.
        separator: what stands between the name of a file and that of a photo in it.
        make_index: the index of a file, by its path and stamp.
        read_packed: what a place says of a packed photo: (path, stamp, place, codec).
    """

    kind: str
    suffix: str
    separator: str
    make_index: Callable[[str, Stamp], ShardIndex]
    read_packed: Callable[[str, Stamp, Any, str], bytes]


class PackedSource(ImageSource):
    """Photos in large files, each read by its place: no file has to be unpacked.

    They are numbered in the order of the files and of the photos in each. Without the
    names of photos, which are looked up in the indices when they are asked for, it
    takes 32 bytes for each.
    """

    decoding = PLAIN

    def __init__(
        self,
        root: str,
        split: str | None,
        *,
        form: Format,
        exclude: Sequence[str],
        local_cache_dir: str | Path | LocalCache | None,
    ):
        """Find the files, and where the photos are in them.

        Args:
            root: the folder of the files, or one of them.
            split: the part, as of `find_shards`.
            form: what kind of files they are.
            exclude: patterns of names and paths that are passed over.
            local_cache_dir: each photo is copied here when it is first read: a folder,
                or a cache that has a bound; None: not.

        Raises:
            InputError: no files or photos, or files that cannot be read.
        """
        self._form = form
        self._cache: LocalCache | None = None
        if isinstance(local_cache_dir, LocalCache):
            self._cache = local_cache_dir
        elif local_cache_dir is not None:
            self._cache = LocalCache(local_cache_dir)
        self._paths = find_shards(root, split, suffix=form.suffix, exclude=exclude)
        indexed = index_shards(self._paths, make=form.make_index, kind=form.kind)
        self._stamps = [stamp for stamp, _ in indexed]
        indices = [index for _, index in indexed]
        self._codecs = [index.codec for index in indices]
        self._firsts = np.cumsum([0, *(len(index) for index in indices)])
        self._places = np.concatenate(
            [np.zeros(0, PLACE), *(i.places for i in indices)]
        )
        self._in_bucket = self._paths[0].startswith(ADDRESSES)
        self._have_names = [bool(index.names) for index in indices]
        self._named: tuple[int, Sequence[str]] = (-1, ())
        self.remarks = tuple(
            f"{path}: {line}"
            for path, index in zip(self._paths, indices, strict=True)
            for line in index.remarks
        )
        if not np.any(self._places["length"] != ABSENT):
            raise InputError(
                f"{root}: no photos in {len(self._paths)} {form.suffix} files"
                + "".join(f"\n  {line}" for line in self.remarks)
            )
        self._say_cost(root)
        self.labels, self.class_names = number_labels(
            indices, class_names=read_class_names(root), describe=self.describe
        )

    def _say_cost(self, root: str) -> None:
        """A warning where a photo costs reading much more than itself."""
        there = self._places[self._places["length"] > 0]
        whole = there["unpacked"].astype(np.int64)
        read = np.where(there["stored"] > 0, there["stored"], whole).mean()
        length = there["length"].mean()
        if read > MUCH_MORE * length and read > MUCH_BYTES:
            print(
                f"WARNING: {root}: to read a photo of {length / 1e3:.0f} kB, "
                f"{read / 1e6:.1f} MB of its file are read and unpacked, on average: "
                "write the files anew without compression (docs/photos.md)",
                flush=True,
            )

    def __getstate__(self) -> dict[str, Any]:
        # Reading processes have threads of their own, and look names up themselves, for
        # the few that they need.
        state = {**self.__dict__, "_named": (-1, ())}
        state.pop("_ahead", None)
        return state

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, index: int) -> bytes:
        """The encoded bytes of one photo; OSError if they cannot be read."""
        return self._ahead.take(index) if self._in_bucket else self._read_now(index)

    def ask_for(self, indices: Iterable[int]) -> None:
        """Begin to read these, of files in a bucket."""
        if self._in_bucket:
            self._ahead.ask(indices)

    @cached_property
    def _ahead(self) -> ReadAhead:
        places = self._places
        return ReadAhead(self._read_now, lambda n: max(0, int(places[n]["length"])))

    def _read_now(self, index: int) -> bytes:
        shard, place = self._find(index)
        if self._cache is None:
            return self._read(shard, place)
        stamp, length = self._stamps[shard], int(place["length"])
        where = f"{stamp.size} {place['offset']} {place['start']}"
        return self._cache.read_object(
            f"{escape_name(absolute_path(self._paths[shard]))} {where}",
            size=length,
            version=stamp.version,
            read=lambda: self._read(shard, place),
        )

    def _read(self, shard: int, place: Any) -> bytes:
        path, stamp = self._paths[shard], self._stamps[shard]
        if place["unpacked"] or not place["stored"]:
            return self._form.read_packed(path, stamp, place, self._codecs[shard])
        return read_at(path, int(place["offset"]), int(place["length"]), stamp=stamp)

    def open(self, index: int) -> BinaryIO:
        """One photo as an open file, which is read as far as it is asked for."""
        shard, place = self._find(index)
        if self._cache or place["unpacked"] or not place["stored"]:
            return io.BytesIO(self.read(index))
        return open_part(
            self._paths[shard],
            int(place["offset"]),
            int(place["length"]),
            stamp=self._stamps[shard],
            buffer_bytes=HEADER_BYTES,
        )

    def describe(self, index: int) -> str:
        """The file, and the photo's name or number in it."""
        shard = self._shard_of(index)
        row = index - int(self._firsts[shard])
        name = self._names(shard)[row] if self._have_names[shard] else str(row)
        return f"{self._paths[shard]}{self._form.separator}{name}"

    def stamp(self, index: int) -> bucket_tree.Stamp:
        """Its size, and the version of its file."""
        version = self._stamps[self._shard_of(index)].version
        return bucket_tree.Stamp(max(0, int(self._places[index]["length"])), version)

    def _find(self, index: int) -> tuple[int, Any]:
        place = self._places[index]
        if place["length"] <= 0:
            raise OSError("no bytes: there is no photo")
        if place["length"] > self.decoding.max_bytes:
            raise OSError(
                f"{place['length']} bytes, more than the limit of "
                f"{self.decoding.max_bytes} that follows from data.max_megapixels"
            )
        return self._shard_of(index), place

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._firsts, index, side="right")) - 1

    def _names(self, shard: int) -> Sequence[str]:
        """The names of the photos in one file that has them."""
        known, names = self._named
        if known != shard:
            path = self._paths[shard]
            ((stamp, index),) = index_shards(
                [path], make=self._form.make_index, kind=self._form.kind
            )
            if stamp != self._stamps[shard]:
                raise InputError(f"{path} has changed since it was indexed; start anew")
            names = index.names
            self._named = (shard, names)
        return names


def photos_of(
    root: str, split: str | None, *, form: Format, exclude: Sequence[str]
) -> Callable[[str], bool]:
    """Whether a photo, by its path, is of these files: `photos_of_part`."""
    return photos_of_part(
        root, split, suffix=form.suffix, separator=form.separator, exclude=exclude
    )
