"""A folder of descriptors on disk: what is in it, and what binds its parts together.

    shard-00000.npy …   float32 or float16 [n, D]
    index.csv           path, size, mtime_ns, shard, row, status: a line per image
    descriptors.json    what made the descriptors, how much of the above counts, and
                        since version 2 the sizes and digests of all of it

writer.py writes it, index_file.py reads index.csv, and repair.py looks for damage. What
descriptors.json does not count is half done.
"""

import json
import math
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from multigrain_jax.data.decoding import exact_record, was_fast
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name, read_json, unescape_name
from multigrain_jax.trees import json_digest

# 2 adds sizes and digests, and what is known of how photos were decoded; of version 1
# they are not known, and the next run of `embed` adds them.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, FORMAT_VERSION)
DESCRIPTOR_FOLDER = "descriptors"  # in the workdir of the task `embed`
HEAD_FILE = "descriptors.json"
INDEX_FILE = "index.csv"
DTYPES = ("float32", "float16")

OK = "ok"
# The status of lines whose descriptors no longer count.
VANISHED = "vanished"
REPLACED = "replaced by a newer file"
READ_LATER = "could be read by a later run"
DAMAGED = "descriptor was damaged on disk"
OUTDATED = (VANISHED, REPLACED, READ_LATER, DAMAGED)


class DescriptorSettings(NamedTuple):
    """What all descriptors of a folder have in common.

    Attributes:
        dim: D.
        dtype: one of `DTYPES`.
        model_digest: of the checkpoint's arrays, and of another network's head.
        backbone: its name.
        pooling_exponent: p of the GeM pooling.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        whitened: whether the model whitens.
        decoding: how photos became pixels, as `Decoding.record` says; None in folders
            older than that record, whose photos were turned upright and no more.
        test_sizes: two or more, ascending, the last of them S: embeddings at all of
            these are averaged, and made of unit length. Empty where S is the only one,
            and then not in descriptors.json, so that older versions read that.
    """

    dim: int
    dtype: str
    model_digest: str
    backbone: str
    pooling_exponent: float
    test_size: int
    test_mode: str
    whitened: bool
    decoding: str | None = None
    test_sizes: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes that photos are embedded at, in pixels."""
        return self.test_sizes or (self.test_size,)

    @property
    def decode(self) -> str:
        """The value of `data.decode`, "fast" or "exact"; "exact" in older folders."""
        return "fast" if self.decoding and was_fast(self.decoding) else "exact"


class ImageStamp(NamedTuple):
    """An image file as it was when it was looked at."""

    path: str
    size: int
    mtime_ns: int


class IndexRow(NamedTuple):
    """One line of index.csv.

    Attributes:
        image: the file.
        shard: number of the shard; None where there is no descriptor.
        row: row of the shard.
        status: "ok", or why the image has no descriptor that counts.
    """

    image: ImageStamp
    shard: int | None
    row: int | None
    status: str


class Shard(NamedTuple):
    """What is known of one shard.

    Attributes:
        rows: how many descriptors.
        bytes: of its file.
        digest: SHA-256 of its file; None: the shard was damaged and is gone.
    """

    rows: int
    bytes: int
    digest: str | None


class Block(NamedTuple):
    """What is known of consecutive lines of index.csv, those of one commit.

    Attributes:
        rows: how many images.
        bytes: of their lines.
        digest: SHA-256 of these.
    """

    rows: int
    bytes: int
    digest: str


class Head(NamedTuple):
    """What descriptors.json says.

    Attributes:
        settings: how the descriptors were made.
        num_rows: lines of index.csv that count, the header not among them.
        num_shards: shards that count.
        num_finished_rows: lines that were there before the run that is under way.
        version: of the format.
        shards: all that count; empty in version 1.
        blocks: all lines that count; empty in version 1.
        blocks_before: the same of the index that `blocks` are about to replace; either
            of the two is on disk. Empty where nothing is under way.
        roots: folders that the images were found below.
    """

    settings: DescriptorSettings
    num_rows: int
    num_shards: int
    num_finished_rows: int
    version: int
    shards: tuple[Shard, ...] = ()
    blocks: tuple[Block, ...] = ()
    blocks_before: tuple[Block, ...] = ()
    roots: tuple[str, ...] = ()


_COUNTS = ("num_rows", "num_shards", "num_finished_rows")


def read_head(folder: Path) -> Head:
    """What descriptors.json of a folder says.

    Raises:
        InputError: no such file, one of another format, or one that was changed.
    """
    path = folder / HEAD_FILE
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        if not folder.exists():
            raise InputError(
                f"{folder}: a folder of descriptors was expected, found nothing there; "
                "the task `embed` makes one"
            ) from error
        raise InputError(
            f"{folder}: a folder of descriptors was expected, and reading {HEAD_FILE} "
            f"failed: {error}; the task `embed` makes one"
        ) from error
    version = values.pop("format_version", None) if isinstance(values, dict) else None
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        raise InputError(
            f"{path}: format_version {version} found, "
            f"{' or '.join(map(str, READABLE_VERSIONS))} expected; embed the images "
            "anew, into another folder"
        )
    try:
        if version > 1 and values.pop("digest", None) != json_digest(values):
            raise ValueError("its digest does not fit what it says")
        return _head(values, version)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not what the task `embed` writes ({type(error).__name__}: "
            f"{error}); if it was edited, undo that, or restore it from a copy; once "
            "it is deleted, `embed` makes all descriptors of the folder anew"
        ) from error


def _head(values: dict[str, Any], version: int) -> Head:
    num_rows, num_shards, num_finished = (int(values.pop(name)) for name in _COUNTS)
    shards = tuple(Shard(**shard) for shard in values.pop("shards", ()))
    blocks, before = (
        tuple(Block(**block) for block in values.pop(name, ()))
        for name in ("blocks", "blocks_before")
    )
    roots = tuple(unescape_name(root) for root in values.pop("roots", ()))
    values["pooling_exponent"] = float(values["pooling_exponent"])
    values["test_sizes"] = _test_sizes(values)
    settings = DescriptorSettings(**values)
    if not isinstance(settings.decoding, (str, NoneType)):
        raise TypeError(f"decoding is {settings.decoding!r}")
    return Head(
        settings,
        num_rows,
        num_shards,
        num_finished,
        version,
        shards,
        blocks,
        before,
        roots,
    )


def _test_sizes(values: dict[str, Any]) -> tuple[int, ...]:
    if "test_sizes" not in values:
        return ()
    sizes = values["test_sizes"]
    are_sizes = isinstance(sizes, list) and all(type(size) is int for size in sizes)
    if not are_sizes or len(sizes) < 2 or sizes != sorted(set(sizes)):
        raise TypeError(f"test_sizes is {sizes!r}")
    if sizes[-1] != values["test_size"]:
        raise ValueError(f"test_sizes is {sizes!r}, and test_size another")
    return tuple(sizes)


def head_bytes(head: Head) -> bytes:
    """descriptors.json of the present format, with its own digest."""
    values: dict[str, Any] = {
        **head.settings._asdict(),
        **{name: getattr(head, name) for name in _COUNTS},
        "roots": [escape_name(root) for root in head.roots],
    }
    if not head.settings.test_sizes:
        del values["test_sizes"]
    for name in ("shards", "blocks", "blocks_before"):
        values[name] = [part._asdict() for part in getattr(head, name)]
    if math.isinf(values["pooling_exponent"]):
        values["pooling_exponent"] = "inf"  # JSON has no infinity
    sealed = {"format_version": FORMAT_VERSION, **values, "digest": json_digest(values)}
    return (json.dumps(sealed, indent=1) + "\n").encode()


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05d}.npy"


def differences(found: DescriptorSettings, expected: DescriptorSettings) -> list[str]:
    """What differs between the settings of a folder and those of a run, a line each.

    All sizes are one line, which is named as the key that sets them.
    """
    there, here = _by_key(found), _by_key(expected)
    return [
        f"{key}: the folder has {value}, this run {here[key]}"
        for key, value in there.items()
        if value != here[key]
    ]


def _by_key(settings: DescriptorSettings) -> dict[str, Any]:
    """The settings by the keys of a configuration, which has one for all sizes."""
    values = settings._asdict()
    del values["test_sizes"]
    return {**values, "test_size": settings.test_sizes or settings.test_size}


def require_same_settings(
    found: DescriptorSettings, expected: DescriptorSettings, *, folder: Path
) -> None:
    """Check that descriptors can be compared with those of a folder.

    Raises:
        InputError: they were made otherwise; the message lists every difference.
    """
    listed = "\n  ".join(differences(found, expected))
    if not listed:
        return
    if found._replace(decoding=expected.decoding) == expected:
        raise InputError(
            f"{folder}: its photos were decoded otherwise than those that they are "
            "compared with, which moves similarities a little; embed the photos of one "
            f"of the two anew, {_as_each_other(found, expected)}\n  {listed}"
        )
    raise InputError(
        f"{folder} holds descriptors that were made otherwise, which no inner "
        "product compares; use the same model and sizes, or another workdir\n  "
        f"{listed}"
    )


def _as_each_other(found: DescriptorSettings, expected: DescriptorSettings) -> str:
    """The keys that decode photos of one folder as those of another were."""
    records = [s.decoding and exact_record(s.decoding) for s in (found, expected)]
    if records[0] != records[1]:
        keys = "data.decoding, data.background, data.depth and data.decode"
        return f"with the same {keys} as the others"
    return (
        f"these with --config.data.decode={expected.decode}, or the others with "
        f"--config.data.decode={found.decode}"
    )
