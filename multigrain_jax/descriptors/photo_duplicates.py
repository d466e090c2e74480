"""Photos that are the same or nearly so, found without a network."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.decoding import Decoding
from multigrain_jax.data.same_bytes import same_bytes
from multigrain_jax.descriptors.grouping import Linkage, group_pairs
from multigrain_jax.descriptors.hash_pairs import (
    as_similarity,
    distances_of,
    near_hashes,
)
from multigrain_jax.descriptors.near_duplicates import MAX_PAIRS
from multigrain_jax.descriptors.photo_hashes import UNREADABLE, PhotoHashes, hash_files
from multigrain_jax.descriptors.roots import identity_of

NO_PAIRS = np.zeros((0, 2), np.int64)


class PhotoDuplicates(NamedTuple):
    """What is the same, or nearly so, among N files.

    Attributes:
        pairs: int64 [P, 2], rows a < b whose hashes are near.
        distances: int64 [P], the bits in which these differ.
        mirrored: bool [P], whether one is nearer to the mirror image of the other.
        groups: ascending rows that belong together, the largest groups first.
        copies: int64 [C, 2], rows with the hash of an earlier row, and that row, of
            which there are too many to list each with each.
        same_bytes: rows whose file equals that of an earlier one, with that one.
        links: rows that are the file of an earlier one, with that one; in no group.
        hashes: of all photos; None where none were made. Of `same_bytes` and `links`
            they are those of the earlier row.
        largest_kept: as of `HashPairs`.
    """

    pairs: np.ndarray
    distances: np.ndarray
    mirrored: np.ndarray
    groups: list[np.ndarray]
    copies: np.ndarray
    same_bytes: dict[int, int]
    links: dict[int, int]
    hashes: PhotoHashes | None
    largest_kept: int | None = None

    def unreadable(self) -> np.ndarray:
        """Rows that were to be hashed and cannot be read."""
        if self.hashes is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.hashes.states == UNREADABLE)


def photo_duplicates(
    paths: Sequence[str],
    *,
    hash_distance: int | None,
    linkage: Linkage,
    decoding: Decoding,
    watched: bool = False,
) -> PhotoDuplicates:
    """Files that are the same to the byte, and photos whose hashes are near.

    Only files that are as large as another are read for the first; one of each is
    decoded for the second.

    Args:
        paths: of N files.
        hash_distance: in how many bits of `BITS` hashes may differ; None: no hashes.
        linkage: which groups pairs of near hashes form.
        decoding: how photos become pixels.
        watched: whether a terminal shows the progress.
    """
    first: dict[object, int] = {}
    of_row = [first.setdefault(identity_of(path), n) for n, path in enumerate(paths)]
    links = {row: own for row, own in enumerate(of_row) if row != own}
    rows = np.array(sorted(first.values()), np.int64)
    same = same_bytes([rows], dict(enumerate(paths)))
    copies = np.array(list(same.items()), np.int64).reshape(-1, 2)
    if hash_distance is None:
        groups = group_pairs(
            NO_PAIRS, np.zeros(0), threshold=0, linkage=linkage, copies=copies
        )
        none = np.zeros(0, np.int64)
        return PhotoDuplicates(
            NO_PAIRS, none, none.astype(bool), groups, NO_PAIRS, same, links, None
        )
    rows = np.setdiff1d(rows, copies[:, 0])
    wanted: list[str] = [paths[int(row)] for row in rows]
    chosen = hash_files(wanted, decoding=decoding, watched=watched)
    place = np.searchsorted(rows, [same.get(own, own) for own in of_row])
    hashes = PhotoHashes(*(values[place] for values in chosen))
    found = near_hashes(hashes, hash_distance, limit=MAX_PAIRS, rows=rows)
    groups = group_pairs(
        found.pairs,
        as_similarity(found.distances),
        threshold=-1,
        linkage=linkage,
        copies=np.concatenate([copies, found.copies]),
    )
    _, mirrored = distances_of(hashes, found.pairs)
    return PhotoDuplicates(
        found.pairs,
        found.distances,
        mirrored,
        groups,
        found.copies,
        same,
        links,
        hashes,
        found.largest_kept,
    )
