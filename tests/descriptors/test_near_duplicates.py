"""Near duplicates against the plainest loops."""

import numpy as np
import pytest

from multigrain_jax.descriptors import near_duplicates as module
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.near_duplicates import (
    NearDuplicates,
    connected_groups,
    near_duplicates,
    without_links,
)
from multigrain_jax.errors import InputError


def collection(rng, count=2500, dim=12):
    """Rows whose inner products are exact; some are copies of others."""
    rows = rng.integers(-2, 3, (count, dim)).astype(np.float16)
    rows[rng.integers(0, count, 50)] = rows[rng.integers(0, count, 50)]
    return rows


def plain_pairs(rows, live, threshold):
    similarity = rows.astype(np.float64) @ rows.astype(np.float64).T
    pairs, similarities = [], []
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            if live[a] and live[b] and similarity[a, b] >= threshold:
                pairs.append((a, b))
                similarities.append(similarity[a, b])
    return pairs, similarities


def plain_groups(pairs):
    """Flood fill."""
    near = {}
    for a, b in pairs:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    groups, seen = [], set()
    for start in sorted(near):
        waiting, group = [start], set()
        while waiting:
            node = waiting.pop()
            if node not in group:
                group.add(node)
                waiting += near[node]
        if start not in seen:
            groups.append(sorted(group))
        seen |= group
    return sorted(groups, key=len, reverse=True)


# One block; blocks of which the last is not full.
@pytest.mark.parametrize("block_bytes", [1 << 30, 1])
def test_pairs_and_groups_equal_the_plain_loops(block_bytes):
    rng = np.random.default_rng(0)
    rows = collection(rng)
    live = rng.random(len(rows)) < 0.9
    index = DescriptorIndex([rows[:700], rows[700:]], live=live)
    found = near_duplicates(index, 28, block_bytes=block_bytes)
    pairs, similarities = plain_pairs(rows, live, 28)
    assert 20 < len(pairs) < 5000
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_array_equal(found.similarities, similarities)
    groups = plain_groups(pairs)
    assert len(groups[0]) > 2
    assert [group.tolist() for group in found.groups] == groups


def test_a_collection_without_duplicates_has_no_pairs():
    found = near_duplicates(DescriptorIndex([np.eye(4, dtype=np.float32)]), 0.5)
    assert found.pairs.shape == (0, 2)
    assert found.similarities.shape == (0,)
    assert found.groups == []


def test_groups_join_over_others_in_any_order_of_pairs():
    rng = np.random.default_rng(1)
    for _ in range(20):
        pairs = [tuple(sorted(pair)) for pair in rng.integers(0, 60, (35, 2)).tolist()]
        pairs = [(a, b) for a, b in pairs if a != b]
        assert [g.tolist() for g in connected_groups(pairs)] == plain_groups(pairs)


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_PAIRS", 5)
    index = DescriptorIndex([np.ones((4, 2), np.float32)])
    with pytest.raises(InputError, match="more than 5 pairs of 4 images"):
        near_duplicates(index, 0.5)


def test_rows_of_one_photo_are_links_and_no_pairs():
    found = NearDuplicates(
        np.array([[0, 3], [1, 2], [1, 4], [2, 4], [4, 5]]),
        np.array([1.0, 0.9, 0.8, 0.7, 0.95], np.float32),
        [],
    )
    photos = {0: "a", 3: "a", 1: "b", 2: "c", 4: "c", 5: "d"}
    left, links = without_links(found, photos)
    assert links == {3: 0, 4: 2}
    assert left.pairs.tolist() == [[1, 2], [2, 5]]
    assert left.similarities.tolist() == pytest.approx([0.9, 0.95])
    assert [group.tolist() for group in left.groups] == [[1, 2, 5]]
    assert without_links(found, dict.fromkeys(range(6)))[0].groups == []
    same, none = without_links(found, {row: row for row in range(6)})
    assert same is found and none == {}
