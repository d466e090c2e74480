"""INRIA Holidays: the first photo of each scene looks for the others."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFiles,
    Protocol,
    TurnAndCrop,
    file_names,
    first_folder,
    rank_among_groups,
    require_count,
)
from multigrain_jax.errors import InputError
from multigrain_jax.files import MAX_TEXT_BYTES, read_small

ORIGIN = (
    "the photos are on INRIA's page of the Holidays dataset (Jégou, Douze and Schmid "
    "2008), as jpg1.tar.gz and jpg2.tar.gz"
)
ROTATIONS_ORIGIN = (
    "the table of upright rotations is holidays-rotate.yaml in the original MultiGrain "
    "repository; without it the photos are taken as they are"
)
FIRST_GROUP = 1000  # a file is called group · 100 + n
ROTATION = re.compile(r"""["']?([\w.-]+)["']?\s*[:,\s]\s*(-?\d+)\s*,?""")


def load_holidays(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """INRIA Holidays: the first photo of each group looks for the others.

    Args:
        files: `root` has the photos, or a folder `jpg` of them.
        counts: `images` and `groups`.

    Raises:
        InputError: photos are missing, or the table of rotations cannot be read.
    """
    folder = first_folder(files.root, ("jpg",))
    names = [name for name in file_names(folder) if re.fullmatch(r"\d{6}\.jpg", name)]
    numbers = np.array([int(name[:6]) for name in names], np.int64)
    groups = numbers // 100
    expected_groups = FIRST_GROUP + np.arange(counts["groups"])
    wanted = [int(group) * 100 for group in expected_groups]
    for group in expected_groups:
        # A gap in a group's numbers; what is missing at its end is not known.
        members = numbers[groups == group]
        wanted += range(int(group) * 100 + 1, int(members.max(initial=0)))
    missing = [f"{number}.jpg" for number in sorted(set(wanted) - set(numbers))]
    queries = np.flatnonzero(numbers % 100 == 0)
    for what, found in (("groups", len(queries)), ("images", len(names))):
        require_count(
            f"holidays, {what}",
            folder,
            found=found,
            expected=counts[what],
            origin=ORIGIN,
            missing=missing,
        )
    positives, junk = rank_among_groups(groups, queries)
    turned = {}
    if files.rotations is not None:
        turned = _read_rotations(files.rotations, names)
    return Benchmark(
        name="holidays",
        root=files.root,
        paths=[str(folder / name) for name in names],
        queries=queries,
        database=np.arange(len(names)),
        protocols=[Protocol("all", ("map",), np.arange(len(queries)), positives, junk)],
        turned_or_cropped=turned,
    )


def _read_rotations(path: Path, names: list[str]) -> dict[int, TurnAndCrop]:
    """Lines such as `"100600.jpg": 90,`, in braces or not."""
    try:
        text = read_small(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"rotations {path}: cannot be read ({error}); {ROTATIONS_ORIGIN}"
        ) from error
    positions = {name: position for position, name in enumerate(names)}
    turned = {}
    for line in text.splitlines():
        line = line.strip()
        if line in ("", "{", "}") or line.startswith("#"):
            continue
        match = ROTATION.fullmatch(line)
        degrees = int(match[2]) % 360 if match else -1
        if match is None or degrees % 90:
            raise InputError(
                f"rotations {path}: found the line {line!r}, expected a photo and "
                '0, 90, 180 or 270, such as "100600.jpg": 90; '
                f"{ROTATIONS_ORIGIN}"
            )
        if degrees and match[1] in positions:
            turned[positions[match[1]]] = TurnAndCrop(clockwise=degrees)
    if not turned:
        raise InputError(
            f"rotations {path}: turns none of the photos; {ROTATIONS_ORIGIN}"
        )
    return turned
