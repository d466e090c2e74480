"""What of a folder of descriptors can be kept by its writer, and what is damaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.descriptors.folder import (
    DAMAGED,
    INDEX_FILE,
    OK,
    Head,
    IndexRow,
    Shard,
    shard_path,
)
from multigrain_jax.descriptors.index_file import HEADER, blocks_in, read_index
from multigrain_jax.descriptors.shards import (
    shard_problem,
    size_problem,
    unknown_shard,
)
from multigrain_jax.files import require_content

NAMES_SHOWN = 3
# Version 1 has no blocks; they are cut like this.
BLOCK_ROWS = 16_384
_GONE = Shard(0, 0, None)


class Sound(NamedTuple):
    """What of a folder is as it was written.

    Attributes:
        rows: lines of the index, those of lost descriptors marked.
        row_counts: how many of them each block has.
        shards: all that count, the lost ones as such.
        damage: a line for everything that is lost.
        index_fits: whether index.csv is on disk just so.
    """

    rows: list[IndexRow]
    row_counts: list[int]
    shards: list[Shard]
    damage: list[str]
    index_fits: bool


def find_sound(folder: Path, head: Head, *, check_digests: bool) -> Sound:
    """Look through a folder that nobody else writes to; nothing is changed.

    Args:
        folder: of descriptors.
        head: what its descriptors.json says.
        check_digests: whether shards are compared by digests, or by size alone.

    Raises:
        InputError: an index of version 1 that cannot be read.
    """
    if head.version == 1:
        blocks: list[list[IndexRow] | None] = []
        rows = list(read_index(folder, head.num_rows))
        blocks += [
            rows[start : start + BLOCK_ROWS]
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
        damage, fits = [], False
    else:
        blocks, damage, fits = _sound_blocks(folder, head)
    kept = [block for block in blocks if block is not None]
    rows = [row for block in kept for row in block]
    shards = list(head.shards) or [_GONE] * head.num_shards
    problems: dict[int, str] = {}
    for number in range(head.num_shards):
        path = shard_path(folder, number)
        if head.version == 1:
            found = unknown_shard(path, head.settings)
            if isinstance(found, str):
                problems[number] = found
            else:
                shards[number] = found
        elif shards[number].digest is None:
            problems[number] = ""  # lost and reported before
        elif reason := (shard_problem if check_digests else size_problem)(
            path, shards[number]
        ):
            problems[number] = reason
    misplaced = [n for n in _misplaced(rows, shards) if n not in problems]
    if misplaced and head.version == 1:
        # Two processes have written, each over the shards of the other.
        misplaced = sorted({*misplaced, *range(head.num_shards)} - problems.keys())
    for number in misplaced:
        # Where lines are lost, that is no news.
        reason = "" if damage else "the lines of the index do not fit its rows"
        problems[number] = reason
    for number in problems:
        if 0 <= number < len(shards):
            shards[number] = _GONE
    rows, reports = _without(rows, problems, folder)
    changed = bool(damage or reports or any(problems.values()))
    return Sound(
        rows,
        [len(block) for block in kept],
        shards,
        damage + reports,
        fits and not changed,
    )


def _sound_blocks(
    folder: Path, head: Head
) -> tuple[list[list[IndexRow] | None], list[str], bool]:
    try:
        require_content(folder / INDEX_FILE)
        data = (folder / INDEX_FILE).read_bytes()
    except OSError as error:
        data, reason = b"", error.strerror or str(error)
    else:
        reason = "cut, edited or damaged"
    states = [head.blocks, *([head.blocks_before] if head.blocks_before else [])]
    found = [list(blocks_in(data, blocks)) for blocks in states]
    best = max(found, key=lambda blocks: sum(map(len, filter(None, blocks))))
    lost = head.num_rows - sum(map(len, filter(None, best)))
    if lost:
        return (
            best,
            [
                f"{INDEX_FILE}: {reason}: {lost} of {head.num_rows} lines are lost, "
                "and their photos are made anew"
            ],
            False,
        )
    if not data.startswith(HEADER):
        return best, [f"{INDEX_FILE}: its first line was changed, and is mended"], False
    return best, [], best is found[0] and len(states) == 1


def _misplaced(rows: Sequence[IndexRow], shards: Sequence[Shard]) -> list[int]:
    """Shards whose rows do not each have one line, in the order of the index."""
    counts: dict[int, int] = {}
    wrong: set[int] = set()
    last = 0
    for row in rows:
        if row.shard is None:
            continue
        if not last <= row.shard:
            wrong.add(row.shard)
            continue
        last = row.shard
        if row.row != counts.setdefault(last, 0):
            wrong.add(last)
        counts[last] += 1
    wrong |= {n for n, shard in enumerate(shards) if shard.rows != counts.get(n, 0)}
    return sorted(wrong | {number for number in counts if number >= len(shards)})


def _without(
    rows: list[IndexRow], problems: dict[int, str], folder: Path
) -> tuple[list[IndexRow], list[str]]:
    """The rows without what they have in lost shards, and who loses a descriptor."""
    lost: dict[int, list[str]] = {number: [] for number in problems}
    kept = []
    for row in rows:
        if row.shard is not None and row.shard in lost:
            if row.status == OK:
                lost[row.shard].append(row.image.path)
            status = DAMAGED if row.status == OK else row.status
            row = IndexRow(row.image, None, None, status)
        kept.append(row)
    reports = [
        f"{shard_path(folder, number).name}: {reason or 'lost'}: the descriptors of "
        f"{len(lost[number])} photos are made anew{_named(lost[number])}"
        for number, reason in problems.items()
        if reason or lost[number]
    ]
    return kept, reports


def _named(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    shown = ", ".join(ascii(path)[1:-1] for path in paths[:NAMES_SHOWN])
    more = len(paths) - NAMES_SHOWN
    return f": {shown}" + (f" and {more} more" if more > 0 else "")
