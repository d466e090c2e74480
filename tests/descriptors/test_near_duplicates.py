"""Near duplicates against the plainest loops."""

import numpy as np
import pytest
from helpers.memory import peak_bytes

from multigrain_jax.descriptors import near_duplicates as module
from multigrain_jax.descriptors import same_content
from multigrain_jax.descriptors.grouping import connected_groups
from multigrain_jax.descriptors.index import SEARCH_BYTES, DescriptorIndex
from multigrain_jax.descriptors.joined import TOLERANCE
from multigrain_jax.descriptors.near_duplicates import (
    NearDuplicates,
    near_duplicates,
    without_links,
)


def collection(rng, count=2500, dim=16):
    """Rows of length 4 whose inner products are exact, many of them equal.

    Some are copies of others, some of zeros.
    """
    rows = rng.choice([-1, 1], (count, dim)).astype(np.float16)
    rows[rng.integers(0, count, 50)] = rows[rng.integers(0, count, 50)]
    rows[rng.integers(0, count, 5)] = 0
    return rows


def plain_pairs(rows, live, threshold, allowed=lambda a, b: True):
    similarity = rows.astype(np.float64) @ rows.astype(np.float64).T / 16
    pairs, similarities = [], []
    for a, b in np.argwhere(similarity >= threshold).tolist():
        if a < b and live[a] and live[b] and allowed(a, b):
            pairs.append((a, b))
            similarities.append(similarity[a, b])
    return pairs, similarities


# One block; blocks of which the last is not full.
@pytest.mark.parametrize("block_bytes", [1 << 30, 1])
def test_pairs_and_groups_equal_the_plain_loops(block_bytes):
    rng = np.random.default_rng(0)
    rows = collection(rng)
    live = rng.random(len(rows)) < 0.9
    index = DescriptorIndex([rows[:700], rows[700:]], live=live)
    found = near_duplicates(
        index, 0.8, linkage="single", reference=None, block_bytes=block_bytes
    )
    pairs, similarities = plain_pairs(rows, live, 0.8)
    assert 20 < len(pairs) < 5000
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_array_equal(found.similarities, similarities)
    groups = connected_groups(pairs)
    assert len(groups[0]) > 2
    assert [g.tolist() for g in found.groups] == [g.tolist() for g in groups]
    assert found.lowest_kept is None and not len(found.copies)


def test_a_row_of_zeros_is_like_no_other():
    rows = np.array([[0, 0], [0, 0], [3, 4], [0, 0], [6, 8]], np.float32)
    found = near_duplicates(
        DescriptorIndex([rows]), 0.001, linkage="single", reference=None
    )
    assert found.pairs.tolist() == [[2, 4]]
    found = near_duplicates(
        DescriptorIndex([rows]), -1.0, linkage="single", reference=None
    )
    assert len(found.pairs) == 10
    assert sorted(set(found.similarities.tolist())) == [0, 1]


def test_a_collection_without_duplicates_has_no_pairs():
    index = DescriptorIndex([np.eye(4, dtype=np.float32)])
    found = near_duplicates(index, 0.5, linkage="single", reference=None)
    assert found.pairs.shape == (0, 2)
    assert found.similarities.shape == (0,)
    assert found.groups == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_at_a_threshold_of_one_are_those_that_are_equal_but_for_rounding(dtype):
    """Whatever storing does to the lengths; and all similarities are in [-1, 1]."""
    rng = np.random.default_rng(5)
    unit = rng.standard_normal((40, 300)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    noise = rng.standard_normal(unit.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    # At an angle of δ the similarity is 1 - δ²/2.
    far = np.sqrt(2 * 4 * TOLERANCE)
    rows = np.concatenate([unit, unit + 1e-6 * noise, unit + far * noise, -unit])
    rows = rows.astype(dtype)
    index = DescriptorIndex([rows])
    found = near_duplicates(index, 1.0, linkage="single", reference=None)
    assert found.pairs.tolist() == [[n, n + 40] for n in range(40)]
    assert found.similarities.tolist() == [1.0] * 40
    every = near_duplicates(index, -1.0, linkage="single", reference=None).similarities
    assert len(every) == 160 * 159 // 2
    assert every.max() == 1 and every.min() == -1


@pytest.mark.parametrize("block_bytes", [1 << 30, 1])
@pytest.mark.parametrize("rule", ["same", "different"])
def test_a_rule_about_labels_says_which_rows_may_be_a_pair(rule, block_bytes):
    rng = np.random.default_rng(2)
    rows = collection(rng, 1500)
    live = rng.random(len(rows)) < 0.9
    labels = rng.integers(-1, 4, len(rows)).astype(np.int32)
    index = DescriptorIndex([rows], live=live)
    found = near_duplicates(
        index,
        0.8,
        linkage="single",
        reference=None,
        rule=rule,
        labels=labels,
        block_bytes=block_bytes,
    )

    def allowed(a, b):
        equal = labels[a] == labels[b]
        return min(labels[a], labels[b]) >= 0 and equal == (rule == "same")

    pairs, similarities = plain_pairs(rows, live, 0.8, allowed)
    assert len(pairs) > 20
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_array_equal(found.similarities, similarities)


@pytest.mark.parametrize("block_bytes", [1 << 30, 1])
@pytest.mark.parametrize("sizes", [(900, 1400), (1400, 300)])
def test_pairs_with_a_reference_are_of_a_row_of_each(sizes, block_bytes):
    rng = np.random.default_rng(3)
    rows = collection(rng, sum(sizes))
    live = rng.random(len(rows)) < 0.9
    own, other = (
        DescriptorIndex([part.astype(dtype)], live=alive)
        for part, alive, dtype in zip(
            np.split(rows, [sizes[0]]),
            np.split(live, [sizes[0]]),
            (np.float32, np.float16),
            strict=True,
        )
    )
    found = near_duplicates(
        own, 0.8, linkage="single", reference=other, block_bytes=block_bytes
    )
    pairs, similarities = plain_pairs(rows, live, 0.8, lambda a, b: a < sizes[0] <= b)
    assert len(pairs) > 10
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_array_equal(found.similarities, similarities)


@pytest.mark.parametrize("with_reference", [False, True])
def test_progress_goes_from_nothing_to_all(with_reference):
    index = DescriptorIndex([collection(np.random.default_rng(7), 2100)])
    shares = []
    near_duplicates(
        index,
        1.0,
        linkage="single",
        reference=index if with_reference else None,
        block_bytes=1,
        on_progress=shares.append,
    )
    # Blocks of 1024 rows: each with itself and those behind it, or with all.
    steps = 9 if with_reference else 6
    assert shares == [step / steps for step in range(steps + 1)]


@pytest.mark.parametrize("block_bytes", [1 << 30, 1])
def test_of_too_many_pairs_the_most_similar_are_kept(monkeypatch, block_bytes):
    rng = np.random.default_rng(4)
    rows = collection(rng, 1500)
    pairs, similarities = plain_pairs(rows, np.ones(1500, bool), 0.6)
    order = np.lexsort((np.arange(len(pairs)), -np.array(similarities)))
    limit = len(pairs) // 7
    kept = sorted(order[:limit])
    # A part of those that are equally similar.
    assert similarities[order[limit - 1]] == similarities[order[limit]]
    monkeypatch.setattr(module, "MAX_PAIRS", limit)
    found = near_duplicates(
        DescriptorIndex([rows]),
        0.6,
        linkage="single",
        reference=None,
        block_bytes=block_bytes,
    )
    np.testing.assert_array_equal(found.pairs, np.array(pairs)[kept])
    np.testing.assert_array_equal(found.similarities, np.array(similarities)[kept])
    assert found.lowest_kept == similarities[order[limit]]
    groups = connected_groups(found.pairs)
    assert [g.tolist() for g in found.groups] == [g.tolist() for g in groups]


@pytest.mark.parametrize("rule", ["any", "same"])
def test_thousands_of_copies_are_grouped_without_all_of_their_pairs(monkeypatch, rule):
    monkeypatch.setattr(same_content, "MANY_COPIES", 20)
    rng = np.random.default_rng(6)
    rows = collection(rng, 800)
    labels = np.zeros(len(rows), np.int32)
    rows[rng.permutation(800)[:300]] = rows[0]
    equal = np.flatnonzero((rows == rows[0]).all(axis=1))
    if rule == "same":
        labels[equal[1::2]] = 1
    index = DescriptorIndex([rows[:100], rows[100:]])
    found = near_duplicates(
        index, 0.8, linkage="single", reference=None, rule=rule, labels=labels
    )
    of = {0: equal[labels[equal] == 0], 1: equal[labels[equal] == 1]}
    copies = [(row, own[0]) for own in of.values() for row in own[1:]]
    np.testing.assert_array_equal(found.copies, sorted(copies))
    hidden = {row for row, _ in copies}
    pairs, _ = plain_pairs(
        rows, np.ones(800, bool), 0.8, lambda a, b: labels[a] == labels[b]
    )
    left = [pair for pair in pairs if not hidden & set(pair)]
    np.testing.assert_array_equal(found.pairs, left)
    groups = [g.tolist() for g in connected_groups(pairs)]
    assert [g.tolist() for g in found.groups] == groups
    assert set(found.rows().tolist()) == {r for g in groups for r in g}


def test_twenty_thousand_copies_of_one_photo_take_no_more_than_a_search():
    row = np.random.default_rng(8).standard_normal(64)
    rows = np.tile(row / np.linalg.norm(row), (20_000, 1)).astype(np.float16)
    # What storing and computing round differently.
    rows[::7] = np.nextafter(rows[::7], np.float16(1))
    index = DescriptorIndex([rows])
    found = []

    def search():
        found.append(near_duplicates(index, 0.9, linkage="complete", reference=None))

    # All pairs would be 200 million, of 12 bytes each.
    assert peak_bytes(search) < SEARCH_BYTES
    assert [len(group) for group in found[0].groups] == [20_000]
    assert len(found[0].copies) >= 19_990


def test_rows_of_one_photo_are_links_and_no_pairs():
    found = NearDuplicates(
        np.array([[0, 3], [1, 2], [1, 4], [2, 4], [4, 5]]),
        np.array([1.0, 0.9, 0.8, 0.7, 0.95], np.float32),
        [],
        np.array([[6, 5], [7, 5]]),
    )
    photos = {0: "a", 3: "a", 1: "b", 2: "c", 4: "c", 5: "d", 6: "d", 7: "e"}
    left, links = without_links(found, photos, linkage="single")
    assert links == {3: 0, 4: 2, 6: 5}
    assert left.pairs.tolist() == [[1, 2], [2, 5]]
    assert left.similarities.tolist() == pytest.approx([0.9, 0.95])
    assert left.copies.tolist() == [[7, 5]]
    assert [group.tolist() for group in left.groups] == [[1, 2, 5, 7]]
    left, _ = without_links(found, photos, linkage="complete")
    assert [group.tolist() for group in left.groups] == [[2, 5, 7]]
    one = without_links(found, dict.fromkeys(range(8)), linkage="single")[0]
    assert one.groups == [] and not len(one.pairs) and not len(one.copies)
    same, none = without_links(found, {r: r for r in range(8)}, linkage="single")
    assert same is found and none == {}
