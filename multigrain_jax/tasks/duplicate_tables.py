"""What is written of photos that are nearly the same; above all three tables."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.data.notes import NOTES_FILE
from multigrain_jax.data.skips import SKIPPED_FILE
from multigrain_jax.errors import InputError, printable
from multigrain_jax.tasks.prepare import config_of, leave_if_taken
from multigrain_jax.workdir import (
    RESULTS_FILE,
    unescape_names,
    write_config,
    write_table,
)

# What a run leaves, or none of whose lines it would take away.
LEFT = (
    "links.csv",
    "groups.csv",
    "pairs.csv",
    "leaks.csv",
    "report.html",
    RESULTS_FILE,
    NOTES_FILE,
    SKIPPED_FILE,
)
# Who finds a pair.
NETWORK, HASH, MIRROR = "network", "hash", "hash of the mirror image"


class Pair(NamedTuple):
    """Two photos that are nearly the same.

    Attributes:
        row: of the one.
        other: of the other.
        similarity: from -1 to 1, the network's, or of hashes alone the share of equal
            bits.
        found_by: what found the pair, in words.
        hash_bits: in how many bits their hashes differ; None where it is not known.
    """

    row: int
    other: int
    similarity: float
    found_by: str
    hash_bits: int | None = None


def begin_results(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Write config.json, and take away what the workdir has of other photos.

    Nothing that a run does not write itself is then taken for its own.

    Args:
        workdir: where results go.
        settings: the configuration.
    """
    leave_if_taken(workdir)
    before = unescape_names(config_of(workdir) or settings)
    named = ("database", "pairs")
    if any(before.get(key) != settings[key] for key in named):
        was = ", ".join(f"{key} {before.get(key)}" for key in named)
        now = ", ".join(f"{key} {settings[key]}" for key in named)
        said = f"{workdir}: its results were of {was}; those of {now} replace them"
        print(printable(said))
        for name in LEFT:
            _remove(workdir / name)
    write_config(workdir, settings)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{file}: found what cannot be removed ({error.strerror}), expected a file "
            "of an earlier run; move it away, or take another workdir"
        ) from error


def write_duplicate_tables(
    workdir: Path,
    *,
    paths: Mapping[int, str],
    groups: Sequence[np.ndarray],
    lowest: Sequence[float] | np.ndarray,
    pairs: Iterable[Pair],
    same_bytes: Mapping[int, int],
    links: Mapping[int, int],
) -> None:
    """Write the three tables; nothing is said of photos that are in none.

    Args:
        workdir: where they go.
        paths: of all rows that are in one of them.
        groups: ascending rows that belong together.
        lowest: the least similarity of any two photos of each group.
        pairs: in the order of the table.
        same_bytes: rows whose file equals that of an earlier one, with that one.
        links: rows that are a photo of another row, with that row.
    """
    write_table(
        workdir / "links.csv",
        ("path", "link_to"),
        ((paths[link], paths[photo]) for link, photo in links.items()),
    )
    write_table(
        workdir / "groups.csv",
        ("group", "path", "lowest_similarity", "same_bytes_as"),
        (
            (
                number,
                paths[row],
                float(similarity),
                paths[same_bytes[row]] if row in same_bytes else "",
            )
            for number, (group, similarity) in enumerate(
                zip(groups, lowest, strict=True), start=1
            )
            for row in group.tolist()
        ),
    )
    write_table(
        workdir / "pairs.csv",
        ("path", "other_path", "similarity", "found_by", "hash_bits"),
        (
            (
                paths[pair.row],
                paths[pair.other],
                pair.similarity,
                pair.found_by,
                "" if pair.hash_bits is None else pair.hash_bits,
            )
            for pair in pairs
        ),
    )
