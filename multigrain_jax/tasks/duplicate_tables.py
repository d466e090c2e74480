"""The tables of what is nearly the same: links.csv, groups.csv and pairs.csv."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.workdir import write_table

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
