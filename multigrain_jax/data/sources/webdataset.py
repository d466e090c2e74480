"""Tar shards as WebDataset has them: of each sample a photo and its label."""

import contextlib
import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multigrain_jax.data.sources.packed import Format
from multigrain_jax.data.sources.random_access import (
    Stamp,
    open_to_walk,
    read_at,
)
from multigrain_jax.data.sources.shard_index import ABSENT, PLACE, ShardIndex
from multigrain_jax.data.sources.shard_labels import kind_of_labels
from multigrain_jax.errors import InputError, printable
from multigrain_jax.files import parse_json

# A sample is what has the same name up to the first dot of the file's own name.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
PHOTOS = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "json", "txt")
LABEL_KEYS = ("label", "class")
CAPTION_KEY = "caption"
MAX_LABEL_BYTES = 1 << 20
# Longer texts are captions and no names of classes.
MAX_NAME = 100
BLOCK = tarfile.BLOCKSIZE
MAX_PADDING = 2 << 20
NO_END = "no mark of a tar's end behind {!r}: it may have been cut off there"
_LARGEST = np.iinfo(np.int32).max


@dataclass
class _Sample:
    """What a tar has of one key: the photo's name, place and size; texts of labels."""

    photo: tuple[str, int, int] | None = None
    suffix: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)


def index_tar(path: str, stamp: Stamp) -> ShardIndex:
    """Where the photos of a tar are, and what their labels are.

    The files of a sample need not stand side by side. Photos are in the order of the
    tar.

    Raises:
        InputError: no tar, one that is cut off or damaged, a file that is there twice,
            or a label that is none.
    """
    samples: dict[str, _Sample] = {}
    passed_over: Counter[str] = Counter()
    try:
        with (
            open_to_walk(path, stamp=stamp) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            last = _read_members(path, tar, samples, passed_over)
            offset = int(tar.offset)  # type: ignore[attr-defined]  # no public name
            file.seek(offset)
            rest = file.read(MAX_PADDING)
    except InputError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise _damaged(path, _why(path, stamp, error)) from error
    if rest[:BLOCK].strip(b"\0"):
        raise _damaged(path, f"no header of a member behind {last!r}")
    if rest.strip(b"\0") or stamp.size - offset > MAX_PADDING:
        more = stamp.size - offset
        raise _damaged(path, f"{more} bytes behind its end (tars joined by cat?)")
    return _as_index(path, samples, passed_over, last, has_end=len(rest) >= BLOCK)


def _read_members(
    path: str,
    tar: tarfile.TarFile,
    samples: dict[str, _Sample],
    passed_over: Counter[str],
) -> str:
    """Collect the samples; the name of the last member."""
    last = ""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[assignment]  # it would keep a million
        last = member.name
        if member.isdir():
            continue
        matched = _NAME.fullmatch(member.name)
        suffix = matched[2].lower() if matched else ""
        if not member.isreg() or member.issparse() or matched is None:
            passed_over["links, hidden files, or names without a suffix"] += 1
            continue
        if suffix not in PHOTOS and suffix not in LABELS:
            passed_over[f".{suffix}"] += 1
            continue
        sample = samples.setdefault(matched[1], _Sample())
        if suffix in sample.texts or (sample.photo and sample.photo[0] == member.name):
            raise InputError(
                f"{printable(path)}: found {printable(member.name)} twice, expected "
                "each file once; write the shard anew"
            )
        if suffix in LABELS:
            if member.size > MAX_LABEL_BYTES:
                passed_over[f".{suffix} of more than {MAX_LABEL_BYTES >> 20} MiB"] += 1
                continue
            extracted = tar.extractfile(member)
            assert extracted is not None  # it is a regular file
            sample.texts[suffix] = extracted.read()
        elif sample.photo is None:
            sample.suffix = suffix
            sample.photo = (member.name, member.offset_data, member.size)
        else:
            passed_over["second photos of a sample"] += 1
    return last


def _as_index(
    path: str,
    samples: dict[str, _Sample],
    passed_over: Counter[str],
    last: str,
    *,
    has_end: bool,
) -> ShardIndex:
    photos = sorted(
        (
            (sample.photo[1], sample)
            for sample in samples.values()
            if sample.photo is not None
        ),
        key=lambda pair: pair[0],
    )
    places = np.zeros(len(photos), PLACE)
    labels = np.full(len(photos), ABSENT, np.int32)
    names, numbers = [], {}
    first_of_kind: dict[str, str] = {}
    for row, (offset, sample) in enumerate(photos):
        assert sample.photo is not None  # those without are not among them
        name, _, size = sample.photo
        length = min(size, _LARGEST)
        places[row] = (offset, length, 0, 0, length)
        names.append(name.removeprefix("./"))
        text = _label(f"{path}/{name}", sample, passed_over)
        if text is not None:
            labels[row] = numbers.setdefault(text, len(numbers))
            first_of_kind.setdefault(kind_of_labels([text]), f"{text!r} of {name}")
    if len(first_of_kind) > 1:
        found = " and ".join(map(printable, first_of_kind.values()))
        raise InputError(
            f"{printable(path)}: the labels {found} were found, and expected either "
            "numbers or names; write the shard anew"
        )
    return ShardIndex(
        places=places,
        labels=labels,
        label_texts=list(numbers),
        label_kind=kind_of_labels(list(numbers)),
        codec="",
        names=names,
        class_names=[],
        remarks=_remarks(samples, labels, passed_over)
        + ([] if has_end else [NO_END.format(last)]),
    )


def _label(place: str, sample: _Sample, passed_over: Counter[str]) -> str | None:
    """The label of a sample as text: that of .cls, else of .json, else of .txt."""
    if "cls" in sample.texts:
        return _text(place, "cls", sample.texts["cls"]) or None
    fields: dict[str, Any] = {}
    if "json" in sample.texts:
        fields = _fields(place, sample.texts["json"])
        for key in LABEL_KEYS:
            value = fields.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise InputError(
                    f"{printable(place)}: its .json has {key} = {str(value)[:40]!r}, "
                    "expected a number or a name; write the shard anew"
                )
            return _text(place, "json", str(value).encode()) or None
    if "txt" not in sample.texts:
        return None
    if CAPTION_KEY in fields:
        passed_over[".txt, captions"] += 1
        return None
    text = _text(place, "txt", sample.texts["txt"])
    if len(text) > MAX_NAME or "\n" in text:
        passed_over[f".txt of several lines or more than {MAX_NAME} characters"] += 1
        return None
    return text or None


def _text(place: str, suffix: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig").strip()
        if "\0" in text:
            raise ValueError("a zero byte")
    except ValueError as error:
        raise InputError(
            f"{printable(place)}: its .{suffix} was expected to be text, and reading "
            f"it failed: {error}; write the shard anew"
        ) from error
    return text


def _fields(place: str, data: bytes) -> dict[str, Any]:
    try:
        found = parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(
            f"{printable(place)}: its .json cannot be read ({error}); write the shard "
            "anew"
        ) from error
    return found if isinstance(found, dict) else {}


def _remarks(
    samples: dict[str, _Sample],
    labels: np.ndarray,
    passed_over: Counter[str],
) -> list[str]:
    lines = [
        f"passed over {count} {what}" for what, count in sorted(passed_over.items())
    ]
    alone = [key for key, sample in samples.items() if sample.photo is None]
    if alone:
        lines.append(
            f"passed over {len(alone)} labels without a photo, such as {alone[0]!r}"
        )
    unlabelled = int(np.sum(labels == ABSENT))
    if 0 < unlabelled < len(labels):
        lines.append(f"{unlabelled} of {len(labels)} photos have no label")
    return [line.replace("\0", " ") for line in lines]


def _why(path: str, stamp: Stamp, error: Exception) -> str:
    with contextlib.suppress(OSError):
        start = read_at(path, 0, min(2, stamp.size), stamp=stamp)
        if start == b"\x1f\x8b":
            return "compressed by gzip: unpack it, photos hardly become smaller"
    return str(error)


def _damaged(path: str, reason: str) -> InputError:
    return InputError(
        f"{printable(path)}: a tar was expected, and reading it failed: {reason}; copy "
        "it again"
    )


def _no_packed(path: str, stamp: Stamp, place: Any, codec: str) -> bytes:
    raise OSError("a tar has no packed photos")


WEBDATASET = Format("webdataset", ".tar", "/", index_tar, _no_packed)
