"""Labels of photos in large files: numbers or names, the same rule for all formats."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.sources.folder import UNLABELLED
from multigrain_jax.data.sources.shard_index import (
    ABSENT,
    NAMES,
    NO_LABELS,
    NUMBERS,
    ShardIndex,
)
from multigrain_jax.errors import InputError, printable
from multigrain_jax.files import MAX_TEXT_BYTES, read_small

CLASSES_FILE = "classes.txt"
# Larger numbers are no classes', but those of things; ImageNet-21k has 21 843.
MAX_CLASSES = 1_000_000
_NUMBER = re.compile(r"[+-]?\d{1,18}")


def kind_of_labels(texts: Sequence[str]) -> str:
    """What labels are that were written as text; "" where some are and some are not."""
    if not texts:
        return NO_LABELS
    kinds = {NUMBERS if _NUMBER.fullmatch(text) else NAMES for text in texts}
    return kinds.pop() if len(kinds) == 1 else ""


def read_class_names(root: str) -> list[str]:
    """The names in `classes.txt`, one a line in the order of the labels; else none.

    Args:
        root: the folder that it is in, or a file beside it.

    Raises:
        InputError: it cannot be read, or names a class twice or by nothing.
    """
    there = as_path(root)
    path = (there if there.is_dir() else there.parent) / CLASSES_FILE
    return _class_names(path) if path.exists() else []


def _class_names(path: Path) -> list[str]:
    try:
        text = read_small(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{printable(str(path))}: the names of the classes were expected, one a "
            f"line, and reading them failed: {error}; mend it"
        ) from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    if len(set(names)) < len(names) or "" in names:
        twice = next(name for name in names if not name or names.count(name) > 1)
        raise InputError(
            f"{printable(str(path))}: found the line {twice!r} "
            f"{names.count(twice)} times, expected a name of its own for each class, "
            "in the order of their numbers; mend it"
        )
    return names


def number_labels(
    indices: Sequence[ShardIndex],
    *,
    class_names: Sequence[str],
    describe: Callable[[int], str],
) -> tuple[np.ndarray, list[str]]:
    """The number of the class of each photo, and the names of all classes.

    Labels that are numbers stay as they are, and negative ones are none; names are
    numbered in sorted order, or as `class_names` has them.

    Args:
        indices: of the files, in order.
        class_names: of the classes, where they are known beside the files.
        describe: where a photo is, by its number in all files.

    Returns:
        int32 [N], -1 for photos without a label; and the names.

    Raises:
        InputError: numbers and names in one set, files that name the classes
            otherwise, or a label that is no class.
    """
    firsts = np.cumsum([0, *(len(index) for index in indices)])
    examples: dict[str, str] = {}
    for first, index in zip(firsts, indices, strict=False):
        labelled = np.flatnonzero(index.labels != ABSENT)
        if labelled.size:
            row = int(labelled[0])
            text = index.label_texts[index.labels[row]]
            place = f"{text!r} of {printable(describe(int(first) + row))}"
            examples.setdefault(index.label_kind, place)
    if len(examples) > 1:
        raise InputError(
            f"labels are numbers ({examples[NUMBERS]}) and names ({examples[NAMES]}), "
            "expected all of one kind; write the files anew"
        )
    names = list(class_names) or _names_in_files(indices, describe, firsts)
    kind = next(iter(examples), NO_LABELS)
    if kind == NO_LABELS:
        return np.full(firsts[-1], UNLABELLED, np.int32), names
    texts = {text for index in indices for text in index.label_texts}
    table: dict[str, int] = {}
    if kind == NAMES:
        names = names or sorted(texts)
        table = {name: number for number, name in enumerate(names)}
    else:
        table = {text: max(int(text), UNLABELLED) for text in texts}
        count = max(table.values()) + 1
        if not names and count <= MAX_CLASSES:
            names = [str(number) for number in range(count)]
    limit = len(names) or MAX_CLASSES
    labels = np.empty(firsts[-1], np.int32)
    for first, index in zip(firsts, indices, strict=False):
        numbers = [table.get(text, MAX_CLASSES) for text in index.label_texts]
        # The last entry is that of the photos that have none.
        of_index = np.array([*numbers, UNLABELLED], np.int64)[index.labels]
        if np.any(wrong := of_index >= limit):
            row = int(np.flatnonzero(wrong)[0])
            expected = (
                f"one of the {len(names)} classes {names[0]!r}, …, {names[-1]!r}"
                if names
                else f"a number below {MAX_CLASSES}, or a name"
            )
            raise InputError(
                f"{printable(describe(int(first) + row))}: the label "
                f"{index.label_texts[index.labels[row]]!r} was found, {expected} "
                f"expected; mend it, or {CLASSES_FILE} beside the files"
            )
        labels[first : first + len(index)] = of_index
    return labels, names


def _names_in_files(
    indices: Sequence[ShardIndex], describe: Callable[[int], str], firsts: np.ndarray
) -> list[str]:
    """The classes as the files themselves name them; none where they do not."""
    named = [
        (int(first), list(index.class_names))
        for first, index in zip(firsts, indices, strict=False)
        if len(index)
    ]
    if not named:
        return []
    (start, names), *others = named
    for first, other in others:
        if other != names:
            raise InputError(
                f"the file of {printable(describe(first))} names {len(other)} classes, "
                f"{other[:3]} …, and that of {printable(describe(start))} "
                f"{len(names)}, {names[:3]} …; expected the same in all: write the "
                "files anew, or give only those of one data set"
            )
    return names
