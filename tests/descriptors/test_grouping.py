"""Groups against the plainest loops, with ties of all kinds."""

import numpy as np
import pytest

from multigrain_jax.descriptors.grouping import (
    Linkage,
    complete_groups,
    connected_groups,
    group_pairs,
    lowest_of_pairs,
    without_rows,
)


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


def plain_complete_groups(pairs, similarities):
    """Join the two groups whose last pair comes first, until some pair is missing."""
    by_similarity = sorted(zip([-s for s in similarities], pairs, strict=True))
    place = {pair: number for number, (_, pair) in enumerate(by_similarity)}
    groups = [[node] for node in sorted({node for pair in pairs for node in pair})]
    while True:
        best = None
        for i, left in enumerate(groups):
            for j, right in enumerate(groups[:i]):
                crossing = [tuple(sorted((a, b))) for a in left for b in right]
                if all(pair in place for pair in crossing):
                    last = max(place[pair] for pair in crossing)
                    best = min(best or (last, i, j), (last, i, j))
        if best is None:
            groups = sorted(sorted(group) for group in groups if len(group) > 1)
            return sorted(groups, key=len, reverse=True)
        _, i, j = best
        groups[j] += groups.pop(i)


def random_pairs(rng, nodes, count, levels):
    """Distinct pairs, of similarities that are often equal."""
    pairs = {
        tuple(sorted(pair)) for pair in rng.integers(0, nodes, (count, 2)).tolist()
    }
    pairs = sorted((a, b) for a, b in pairs if a != b)
    return pairs, rng.integers(0, levels, len(pairs)) / levels


def test_groups_join_over_others_in_any_order_of_pairs():
    rng = np.random.default_rng(1)
    for nodes in (8, 60, 400):
        for _ in range(20):
            pairs, _ = random_pairs(rng, nodes, 35, 1)
            rng.shuffle(pairs)
            assert [g.tolist() for g in connected_groups(pairs)] == plain_groups(pairs)


def test_a_long_chain_is_one_group():
    chain = np.stack([np.arange(5000), np.arange(1, 5001)], axis=1)
    chain = np.random.default_rng(0).permutation(5001)[chain]
    (group,) = connected_groups(chain)
    np.testing.assert_array_equal(group, np.arange(5001))


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_complete_linkage_equals_the_plain_loops(levels):
    rng = np.random.default_rng(levels)
    sizes = set()
    for nodes, count in ((5, 12), (12, 60), (12, 200), (25, 60)) * 6:
        pairs, similarities = random_pairs(rng, nodes, count, levels)
        order = rng.permutation(len(pairs))
        found = complete_groups(np.array(pairs)[order], similarities[order])
        plain = plain_complete_groups(pairs, similarities)
        assert [group.tolist() for group in found] == plain
        sizes |= {len(group) for group in plain}
    assert {2, 3, 4} <= sizes


def test_complete_linkage_parts_what_a_chain_connects():
    pairs = np.array([[0, 1], [1, 2], [2, 3], [4, 5]])
    similarities = np.array([0.9, 0.95, 0.9, 0.5], np.float32)
    cases: list[tuple[float, Linkage, list[list[int]]]] = [
        (0.8, "single", [[0, 1, 2, 3]]),
        (0.8, "complete", [[1, 2]]),
        (0.5, "single", [[0, 1, 2, 3], [4, 5]]),
        (0.92, "single", [[1, 2]]),
        (0.96, "complete", []),
    ]
    for threshold, linkage, expected in cases:
        found = group_pairs(pairs, similarities, threshold=threshold, linkage=linkage)
        assert [group.tolist() for group in found] == expected
    assert complete_groups(np.zeros((0, 2), np.int64), np.zeros(0)) == []


@pytest.mark.parametrize("linkage", ["single", "complete"])
def test_copies_go_with_what_they_equal(linkage):
    pairs, similarities = np.array([[0, 5], [1, 2]]), np.array([0.9, 0.7])
    copies = np.array([[8, 5], [9, 5], [7, 6], [10, 1]])

    def grouped(threshold):
        return group_pairs(
            pairs, similarities, threshold=threshold, linkage=linkage, copies=copies
        )

    found = grouped(0.8)
    assert [g.tolist() for g in found] == [[0, 5, 8, 9], [1, 10], [6, 7]]
    found = grouped(0.95)
    assert [g.tolist() for g in found] == [[5, 8, 9], [1, 10], [6, 7]]


def test_what_is_left_is_grouped_as_if_nothing_else_had_been_there():
    """Whatever goes, the groups are those of all pairs, copies written out."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        nodes = 12
        # Two thirds of the rows are copies of one of the first.
        of = np.where(np.arange(3 * nodes) < nodes, np.arange(3 * nodes), 0)
        of[nodes:] = rng.integers(0, nodes, 2 * nodes)
        copies = np.stack([np.arange(nodes, 3 * nodes), of[nodes:]], axis=1)
        pairs, similarities = random_pairs(rng, nodes, 10, 50)
        written = {(a, b): s for (a, b), s in zip(pairs, similarities, strict=True)}
        every = [
            (a, b)
            for a in range(3 * nodes)
            for b in range(a + 1, 3 * nodes)
            if of[a] == of[b] or tuple(sorted((of[a], of[b]))) in written
        ]
        alive = rng.random(3 * nodes) < 0.5
        left = without_rows(np.array(pairs), similarities, copies, alive)
        assert alive[left[0]].all() and alive[left[2]].all()
        found = group_pairs(*left[:2], threshold=-1, linkage="single", copies=left[2])
        expected = plain_groups([(a, b) for a, b in every if alive[a] and alive[b]])
        assert [group.tolist() for group in found] == expected
    none = np.zeros((0, 2), np.int64)
    left = without_rows(np.array([[0, 1], [1, 2]]), np.ones(2), none, np.arange(3) > 0)
    assert left[0].tolist() == [[1, 2]] and len(left[1]) == 1 and not len(left[2])


def test_the_lowest_of_the_known_pairs():
    rng = np.random.default_rng(3)
    for _ in range(20):
        pairs, similarities = random_pairs(rng, 40, 50, 7)
        groups = connected_groups(np.array(pairs)[similarities > 0.4].reshape(-1, 2))
        lowest, known = lowest_of_pairs(groups, np.array(pairs), similarities)
        for group, low, count in zip(groups, lowest, known, strict=True):
            own = [
                similarity
                for (a, b), similarity in zip(pairs, similarities, strict=True)
                if a in group and b in group
            ]
            assert (np.float32(min(own)), len(own)) == (low, count)
    lowest, known = lowest_of_pairs([np.array([3, 4])], np.array([[1, 2]]), np.ones(1))
    assert np.isnan(lowest[0]) and known[0] == 0
