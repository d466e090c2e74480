"""Two collections as one, and the least similarity of a group."""

import numpy as np
import pytest

from multigrain_jax.descriptors import joined as module
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.joined import (
    TOLERANCE,
    JoinedIndex,
    as_similarities,
    lowest_similarities,
)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_rows_of_both_collections_come_by_their_numbers():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 5)).astype(np.float32)
    rows[7] = 0
    live = rng.random(30) < 0.5
    joined = JoinedIndex(
        DescriptorIndex([rows[:4], rows[4:11]], live=live[:11]),
        DescriptorIndex([rows[11:]], live=live[11:]),
    )
    assert len(joined) == 30
    np.testing.assert_array_equal(joined.live, live)
    wanted = np.array([0, 2, 3, 4, 7, 10, 11, 12, 29])
    expected = rows[wanted]
    expected[4] = 0
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    expected /= np.where(lengths == 0, 1, lengths)
    np.testing.assert_allclose(joined.read_rows(wanted), expected, rtol=1e-6)
    assert joined.paths([12, 1]) == ["1", "1"]
    assert joined.read_rows(np.zeros(0, np.int64)).shape == (0, 5)


def test_the_lowest_similarity_of_a_group_equals_the_plain_loop(monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((20, 4)).astype(np.float32)
    index = JoinedIndex(DescriptorIndex([rows[:12]]), DescriptorIndex([rows[12:]]))
    exact = unit(rows.astype(np.float64))
    for size in (2, 3, 4, 11):
        group = np.sort(rng.permutation(20)[:size])
        lowest = min(exact[a] @ exact[b] for a in group for b in group if a < b)
        (found,) = lowest_similarities(index, [group])
        assert found == pytest.approx(lowest, abs=1e-6)
    assert lowest_similarities(index, []).shape == (0,)


def test_similarities_are_within_their_range():
    near = np.float32(1 - TOLERANCE / 2)
    products = np.array([1.0001, near, 1 - 2 * TOLERANCE, -1.0001, 0], np.float32)
    found = as_similarities(products)
    assert found.tolist() == [1, 1, float(np.float32(1 - 2 * TOLERANCE)), -1, 0]
    assert found.dtype == np.float32
