"""Pairs of near hashes, against the plainest loops."""

import itertools

import numpy as np
import pytest

from multigrain_jax.descriptors import hash_pairs as module
from multigrain_jax.descriptors.hash_pairs import (
    as_similarity,
    distances_of,
    largest_distance,
    near_hashes,
)
from multigrain_jax.descriptors.photo_hashes import BITS, PLAIN, READY, PhotoHashes


@pytest.fixture
def hashes(monkeypatch):
    """Sixty hashes, many of which are near or equal, some mirrored, some missing."""
    monkeypatch.setattr(module, "LEFT_ROWS", 7)
    monkeypatch.setattr(module, "RIGHT_ROWS", 11)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, (60, 2), np.uint64)
    mirrored = rng.integers(0, 2**64, (60, 2), np.uint64)
    for row in range(20, 50):
        flips = rng.integers(0, 64, rng.integers(0, 6))
        near = codes[row - 20].copy()
        for flip in flips:
            near[flip % 2] ^= np.uint64(1) << np.uint64(flip)
        if row % 3:
            codes[row] = near
        else:
            mirrored[row] = near
    states = np.where(rng.random(60) < 0.9, READY, PLAIN).astype(np.uint8)
    return PhotoHashes(codes, mirrored, states)


def distance(hashes, a, b):
    """The plainest way: bit by bit."""

    def count(left, right):
        both = zip(left.tolist(), right.tolist(), strict=True)
        return sum(bin(x ^ y).count("1") for x, y in both)

    plain = count(hashes.codes[a], hashes.codes[b])
    return min(plain, count(hashes.codes[a], hashes.mirrored[b])), plain


@pytest.mark.parametrize("rows", [None, np.arange(10, 45)])
def test_pairs_equal_the_plain_loop(hashes, rows):
    chosen = [
        row
        for row in (range(60) if rows is None else rows.tolist())
        if hashes.states[row] == READY
    ]
    expected = {
        (a, b): distance(hashes, a, b)[0]
        for a, b in itertools.combinations(chosen, 2)
        if distance(hashes, a, b)[0] <= 4
    }
    assert len(expected) > 10
    found = near_hashes(hashes, 4, limit=1000, rows=rows)
    pairs = [tuple(pair) for pair in found.pairs.tolist()]
    assert dict(zip(pairs, found.distances.tolist(), strict=True)) == expected
    assert pairs == sorted(pairs)
    assert (found.largest_kept, len(found.copies)) == (None, 0)


def test_distances_are_of_the_nearer_image(hashes):
    pairs = np.array(list(itertools.combinations(range(60), 2)))
    bits, mirrored = distances_of(hashes, pairs)
    assert mirrored.any()
    for (a, b), found, is_mirrored in zip(pairs, bits, mirrored, strict=True):
        if (hashes.states[[a, b]] != READY).any():
            assert (found, is_mirrored) == (BITS, False)
            continue
        nearest, plain = distance(hashes, a, b)
        assert (found, is_mirrored) == (nearest, nearest < plain)


def test_the_largest_distance_of_a_group_is_that_of_all_its_pairs(hashes):
    ready = np.flatnonzero(hashes.states == READY)
    for group in (ready[:5], ready[10:40]):
        pairs = np.array(list(itertools.product(group, group)))
        bits, _ = distances_of(hashes, pairs)
        assert largest_distance(hashes, group) == bits.max()
    assert largest_distance(hashes, np.flatnonzero(hashes.states == PLAIN)) == 0


def test_of_too_many_pairs_the_nearest_are_kept(hashes):
    whole = near_hashes(hashes, 128, limit=10_000)
    some = near_hashes(hashes, 128, limit=20)
    assert len(some.pairs) == 20
    assert some.distances.max() == some.largest_kept
    assert sorted(some.distances) == sorted(whole.distances)[:20]


def test_many_equal_hashes_are_copies_of_the_first(monkeypatch):
    monkeypatch.setattr(module, "MANY_COPIES", 4)
    rng = np.random.default_rng(1)
    codes = np.repeat(rng.integers(0, 2**64, (3, 2), np.uint64), (6, 4, 1), axis=0)
    codes = codes[rng.permutation(11)]
    hashes = PhotoHashes(codes, ~codes, np.zeros(11, np.uint8))
    found = near_hashes(hashes, 0, limit=100)
    six = [row for row in range(11) if (codes == codes[row]).all(axis=1).sum() == 6]
    four = [row for row in range(11) if (codes == codes[row]).all(axis=1).sum() == 4]
    assert sorted(found.copies.tolist()) == [[row, six[0]] for row in six[1:]]
    pairs = [list(pair) for pair in itertools.combinations(four, 2)]
    assert found.pairs.tolist() == pairs


def test_the_same_hash_is_a_similarity_of_one():
    assert as_similarity(np.array([0, 32, 128])).tolist() == [1, 0.75, 0]
