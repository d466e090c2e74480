"""Pairs that are found once and grouped anew."""

import itertools

import numpy as np
import pytest

from multigrain_jax.browse import pairs as module
from multigrain_jax.browse.pairs import find_pairs, group_pairs
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError


def plain_complete(similarities, threshold):
    """Join the two groups whose least similar pair is the most similar, while it is."""
    groups = [[n] for n in range(len(similarities))]
    while True:
        candidates = [
            (min(similarities[a, b] for a in left for b in right), left, right)
            for left, right in itertools.combinations(groups, 2)
        ]
        best = max(candidates, key=lambda c: c[0])
        if best[0] < threshold:
            return sorted(sorted(g) for g in groups if len(g) > 1)
        groups = [g for g in groups if g not in best[1:]] + [best[1] + best[2]]


@pytest.mark.parametrize("seed", range(5))
def test_complete_groups_are_those_of_the_plainest_linkage(seed):
    rng = np.random.default_rng(seed)
    square = rng.permutation(12 * 12).reshape(12, 12) / 144
    similarities = np.maximum(square, square.T)
    rows = np.array(list(itertools.combinations(range(12), 2)))
    values = similarities[rows[:, 0], rows[:, 1]]
    for threshold in (0.3, 0.6, 0.8):
        found = group_pairs(rows, values, threshold=threshold, linkage="complete")
        assert sorted(map(list, found)) == plain_complete(similarities, threshold)
        assert [len(g) for g in found] == sorted(map(len, found), reverse=True)


def test_single_groups_are_connected():
    rows = np.array([[0, 1], [1, 2], [4, 5], [7, 8]])
    values = np.array([0.9, 0.8, 0.7, 0.4])
    found = group_pairs(rows, values, threshold=0.5, linkage="single")
    assert [list(g) for g in found] == [[0, 1, 2], [4, 5]]
    found = group_pairs(rows, values, threshold=0.5, linkage="complete")
    assert [list(g) for g in found] == [[0, 1], [4, 5]]
    assert group_pairs(rows, values, threshold=0.95, linkage="complete") == []


def test_the_progress_ends_at_one_and_never_goes_back():
    rng = np.random.default_rng(0)
    index = DescriptorIndex([rng.standard_normal((3000, 4)).astype(np.float32)])
    told = []
    found = find_pairs(index, 15.0, on_progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    assert found.lowest == 15.0


def test_where_too_many_are_alike_less_is_kept(monkeypatch):
    tried = []

    def only_high(index, threshold):
        tried.append(threshold)
        if threshold < 0.9:
            raise InputError("too many")
        return real(index, threshold)

    real = module.near_duplicates
    monkeypatch.setattr(module, "near_duplicates", only_high)
    index = DescriptorIndex([np.eye(3, dtype=np.float32)])
    found = find_pairs(index, 0.6, on_progress=lambda share: None)
    assert tried == [0.6, 0.8, 0.9] == [*tried[:2], found.lowest]
    monkeypatch.setattr(module, "near_duplicates", lambda i, t: only_high(i, 0))
    with pytest.raises(InputError, match="lowest_threshold"):
        find_pairs(index, 0.6, on_progress=lambda share: None)
