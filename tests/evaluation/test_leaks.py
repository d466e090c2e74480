"""Leaks against the plainest loops."""

import numpy as np
import pytest

from multigrain_jax.evaluation.embed import Embedded, EmbeddedBatch
from multigrain_jax.evaluation.leaks import find_leaks


def batches_of(rows, bad, order, size):
    for start in range(0, len(order), size):
        own = order[start : start + size]
        labels = np.zeros(len(own), np.int32)
        yield EmbeddedBatch(own, rows[own], rows[own], None, labels, bad[own])


@pytest.mark.parametrize("size", [1, 7, 100])
def test_leaks_equal_the_plain_loop_with_ties(size):
    rng = np.random.default_rng(size)
    rows = (rng.choice([-1, 1], (80, 4)) / 2).astype(np.float32)
    rows[rng.random(80) < 0.1] = 0
    bad = rng.random(80) < 0.2
    val, train = rows[:30].copy(), rows[30:]
    val[bad[:30]] = 0  # as unreadable photos have it
    photos = Embedded(val, None, np.zeros(30, np.int32), bad[:30])
    order = rng.permutation(50)
    batches = batches_of(train, bad[30:], order, size)
    found = find_leaks(photos, batches, threshold=0.5)
    expected = []
    for number in range(30):
        best = max(
            (float(val[number] @ train[other]), -other)
            for other in range(50)
            if not bad[30 + other]
        )
        if best[0] >= 0.5 and not bad[number]:
            expected.append((-best[0], number, -best[1]))
    expected.sort()
    assert 5 < len(expected) < 30
    assert found.photos.tolist() == [number for _, number, _ in expected]
    assert found.originals.tolist() == [other for _, _, other in expected]
    assert found.similarities.tolist() == [-value for value, _, _ in expected]


def test_without_another_set_there_are_none():
    photos = Embedded(np.eye(2, dtype=np.float32), None, np.zeros(2), np.zeros(2, bool))
    assert find_leaks(photos, [], threshold=-1.0).photos.tolist() == []
