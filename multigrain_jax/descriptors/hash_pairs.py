"""Pairs of photos whose hashes are near: arrays in, arrays out."""

from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.pair_store import PairStore
from multigrain_jax.descriptors.photo_hashes import BITS, READY, PhotoHashes
from multigrain_jax.descriptors.same_content import MANY_COPIES

# Compared at once, so that all arrays of it stay in the caches.
LEFT_ROWS, RIGHT_ROWS = 64, 4096


class HashPairs(NamedTuple):
    """Pairs of photos whose hashes differ in few bits.

    Attributes:
        pairs: int64 [P, 2], rows a < b, sorted by a and then b.
        distances: int64 [P], the bits in which they differ.
        copies: int64 [C, 2], rows with the hash of an earlier row, and that row, of
            which there are too many to list each with each; the first is in no pair.
        largest_kept: the distance above which no pair was kept, since there were too
            many; None where all are there.
    """

    pairs: np.ndarray
    distances: np.ndarray
    copies: np.ndarray
    largest_kept: int | None


def near_hashes(
    hashes: PhotoHashes, most: int, *, limit: int, rows: np.ndarray | None = None
) -> HashPairs:
    """All pairs that differ in at most `most` bits, one of them mirrored or not.

    Time grows with the square of the photos, 5 ns or so a pair; memory does not.

    Args:
        hashes: of N photos; those without a hash are in no pair.
        most: bits of `BITS`.
        limit: of more pairs, the nearest are kept.
        rows: ascending, which of them to look at; None: all.
    """
    wanted = np.arange(len(hashes.states)) if rows is None else np.asarray(rows)
    wanted = wanted[hashes.states[wanted] == READY]
    copies = _many_copies(hashes.codes, wanted)
    wanted = np.setdiff1d(wanted, copies[:, 0])
    codes, mirrored = hashes.codes[wanted], hashes.mirrored[wanted]
    store = PairStore(limit)
    for first in range(0, len(wanted), LEFT_ROWS):
        left = codes[first : first + LEFT_ROWS]
        for second in range(first, len(wanted), RIGHT_ROWS):
            block = slice(second, second + RIGHT_ROWS)
            bits = np.minimum(
                _bits(left[:, None], codes[None, block]),
                _bits(left[:, None], mirrored[None, block]),
            )
            a, b = np.nonzero(bits <= most)
            later = b + second > a + first
            a, b = a[later], b[later]
            pairs = np.stack([wanted[a + first], wanted[b + second]], axis=1)
            store.add(pairs, as_similarity(bits[a, b]))
    pairs, similarities = store.sorted()
    floor = store.floor
    return HashPairs(
        pairs,
        np.rint((1 - similarities.astype(np.float64)) * BITS).astype(np.int64),
        copies,
        round((1 - floor) * BITS) if np.isfinite(floor) else None,
    )


def distances_of(
    hashes: PhotoHashes, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The bits in which the photos of pairs differ; `BITS` where one has no hash.

    Args:
        hashes: of N photos.
        pairs: int [P, 2].

    Returns:
        int64 [P], of the nearer of the second photo and its mirror image; and bool [P],
        whether that is the mirror image.
    """
    a, b = np.asarray(pairs, np.int64).reshape(-1, 2).T
    plain = _bits(hashes.codes[a], hashes.codes[b]).astype(np.int64)
    mirrored = _bits(hashes.codes[a], hashes.mirrored[b]).astype(np.int64)
    known = (hashes.states[a] == READY) & (hashes.states[b] == READY)
    nearest = np.where(known, np.minimum(plain, mirrored), BITS)
    return nearest, known & (mirrored < plain)


def largest_distance(hashes: PhotoHashes, group: np.ndarray) -> int:
    """The most bits in which any two photos of a group differ, of those with a hash."""
    rows = group[hashes.states[group] == READY]
    if not len(rows):
        return 0
    both = np.concatenate([hashes.codes[rows], hashes.mirrored[rows]], axis=1)
    both = np.unique(both, axis=0)
    largest = 0
    for first in range(0, len(both), LEFT_ROWS):
        left = both[first : first + LEFT_ROWS, None, :2]
        for second in range(0, len(both), RIGHT_ROWS):
            right = both[None, second : second + RIGHT_ROWS]
            bits = np.minimum(_bits(left, right[..., :2]), _bits(left, right[..., 2:]))
            largest = max(largest, int(bits.max()))
    return largest


def as_similarity(distances: np.ndarray) -> np.ndarray:
    """Bits that differ as a similarity: 1 is the same hash; float32."""
    return (1 - np.asarray(distances, np.float32) / BITS).astype(np.float32)


def _bits(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """In how many bits codes [..., 2] differ, uint8 [...]."""
    first = np.bitwise_count(left[..., 0] ^ right[..., 0])
    return first + np.bitwise_count(left[..., 1] ^ right[..., 1])


def _many_copies(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a hash that more than `MANY_COPIES` have, each with the first of them."""
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    _, first, of_row, counts = np.unique(
        codes[rows], axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    of_row = of_row.ravel()
    many = counts[of_row] > MANY_COPIES
    copies = np.stack([rows[many], rows[first[of_row[many]]]], axis=1)
    return copies[copies[:, 0] != copies[:, 1]].astype(np.int64)
