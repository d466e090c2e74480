"""Odd photos against the plainest loops."""

import numpy as np
import pytest

from multigrain_jax.descriptors import oddities as module
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.oddities import (
    likely_mislabels,
    nearest_others,
    outlier_deviations,
)


@pytest.mark.parametrize(("count", "k"), [(60, 5), (4, 10), (1, 3)])
def test_nearest_others_equal_the_plain_loop(monkeypatch, count, k):
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 17)
    rng = np.random.default_rng(count)
    rows = rng.choice([-1, 1], (count, 6)).astype(np.float32)
    live = rng.random(count) < 0.8
    live[0] = True
    found = nearest_others(DescriptorIndex([rows], live=live), k)
    own = np.flatnonzero(live)
    np.testing.assert_array_equal(found.rows, own)
    similarity = rows[own] @ rows[own].T
    for place in range(len(own)):
        others = sorted(
            (-similarity[place, other], other)
            for other in range(len(own))
            if other != place
        )[:k]
        count_found = int(np.isfinite(found.similarities[place]).sum())
        assert count_found == len(others)
        assert (-found.similarities[place, :count_found]).tolist() == [
            value for value, _ in others
        ]
        # Which of equal ones are the last that are found is not told.
        sure = [other for value, other in others if value < others[-1][0]]
        assert found.nearest[place, : len(sure)].tolist() == sure
        assert place not in found.nearest[place].tolist()
        assert set(found.nearest[place, count_found:].tolist()) <= {-1}


def plain_mislabels(nearest, labels):
    found = []
    for place, label in enumerate(labels):
        if label < 0:
            continue
        size = sum(other == label for other in labels)
        own = [n for n in nearest[place][: size - 1] if n >= 0]
        classes = [labels[n] for n in own if labels[n] >= 0]
        others = sorted(set(classes) - {label})
        if not others:
            continue
        most = max(others, key=lambda other: (classes.count(other), -other))
        of_other, of_own = classes.count(most), classes.count(label)
        if of_other / len(classes) >= 0.5 and of_other > of_own:
            found.append((place, most, of_other, of_own, len(classes)))
    return sorted(found, key=lambda m: (-m[2] / m[4], m[3], m[0]))


def test_mislabels_equal_the_plain_loop():
    rng = np.random.default_rng(0)
    for classes in (2, 3, 12):
        labels = rng.integers(-1, classes, 80)
        nearest = np.stack([rng.permutation(80)[:7] for _ in range(80)])
        nearest[rng.random(nearest.shape) < 0.1] = -1
        expected = plain_mislabels(nearest.tolist(), labels.tolist())
        assert len(expected) > 3
        assert [tuple(found) for found in likely_mislabels(nearest, labels)] == expected


def test_a_photo_in_the_wrong_class_is_found_and_a_small_class_is_none():
    rng = np.random.default_rng(1)
    centres = np.eye(3, 16)
    labels = np.repeat([0, 1, 2], [30, 30, 3])
    rows = centres[labels] + 0.1 * rng.standard_normal((63, 16))
    rows[4] = centres[1] + 0.1 * rng.standard_normal(16)
    neighbours = nearest_others(DescriptorIndex([rows.astype(np.float32)]), 10)
    (found,) = likely_mislabels(neighbours.nearest, labels)
    assert found == (4, 1, 10, 0, 10)


def test_outliers_are_far_from_all_others():
    rng = np.random.default_rng(2)
    similarities = (0.8 + 0.02 * rng.standard_normal((200, 5))).astype(np.float32)
    similarities[7] = 0.3
    similarities[9, 2:] = -np.inf
    similarities[11] = -np.inf
    deviations, means = outlier_deviations(similarities)
    assert np.flatnonzero(deviations > 5).tolist() == [7]
    assert means[9] == pytest.approx(similarities[9, :2].mean(), abs=1e-6)
    assert np.isnan(deviations[11]) and np.isnan(means[11])
    # Of a normal distribution, so many are two deviations away.
    normal = 0.5 + 0.1 * rng.standard_normal((20_000, 1))
    assert np.mean(outlier_deviations(normal)[0] > 2) == pytest.approx(0.023, abs=4e-3)
    alike = np.full((50, 3), 0.9)
    alike[3] = 0.899
    assert outlier_deviations(alike)[0].max() < 1
    assert np.isnan(outlier_deviations(np.full((2, 1), -np.inf))[0]).all()
