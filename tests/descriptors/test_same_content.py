"""Equal descriptors, against the plainest loops."""

import numpy as np
import pytest

from multigrain_jax.descriptors import same_content as module
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.joined import JoinedIndex
from multigrain_jax.descriptors.same_content import many_copies


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_copies_equal_the_plain_loop(monkeypatch, dtype, labelled):
    monkeypatch.setattr(module, "MANY_COPIES", 4)
    monkeypatch.setattr(module, "READ_BYTES", 8 * 3 * 10)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (200, 3)).astype(dtype)
    live = rng.random(200) < 0.8
    labels = rng.integers(0, 2, 200) if labelled else None
    index = JoinedIndex(
        DescriptorIndex([rows[:30], rows[30:90]]), DescriptorIndex([rows[90:]])
    )
    members = {}
    for row in range(200):
        if live[row]:
            label = None if labels is None else labels[row]
            unit = rows[row] / max(1e-6, float(np.linalg.norm(rows[row])))
            # What is zero is like nothing, not even what is zero too.
            key = (*np.round(unit, 2).tolist(), label) if unit.any() else row
            members.setdefault(key, []).append(row)
    expected = sorted(
        (row, own[0]) for own in members.values() if len(own) > 4 for row in own[1:]
    )
    assert 20 < len(expected) < 150
    found = many_copies(index, live, labels)
    np.testing.assert_array_equal(found, expected)


def test_rows_of_one_cell_are_compared(monkeypatch):
    monkeypatch.setattr(module, "MANY_COPIES", 1)
    monkeypatch.setattr(module, "_cells", lambda index, rng: np.zeros(5, np.uint64))
    rows = np.array([[1, 2], [1, 3], [1, 2], [0, 0], [2, 4]], np.float32)
    index = JoinedIndex(DescriptorIndex([rows]))
    assert many_copies(index, index.live, None).tolist() == [[2, 0], [4, 0]]


def test_copies_that_rounding_has_told_apart_are_found():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((2000, 256))
    photos = rng.permutation(2000)[:900]
    rows[photos] = rows[photos[:2].repeat(450)] * (1 + 1e-4 * rows[photos])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    assert len(np.unique(rows[photos], axis=0)) > 800
    index = JoinedIndex(DescriptorIndex([rows]))
    found = many_copies(index, index.live, None)
    group = {row: number // 450 for number, row in enumerate(photos.tolist())}
    assert len(found) > 0.99 * len(photos)
    for row, first in found.tolist():
        assert group[row] == group[first] and first < row
