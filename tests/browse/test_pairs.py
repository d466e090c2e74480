"""Pairs that are found once and grouped anew."""

import numpy as np

from multigrain_jax.browse.pairs import find_pairs, group_alive
from multigrain_jax.descriptors import near_duplicates as module
from multigrain_jax.descriptors.index import DescriptorIndex


def at_angles(*degrees):
    radians = np.deg2rad(degrees)
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    return DescriptorIndex([vectors.astype(np.float32)])


def groups(found, alive, degrees, linkage):
    threshold = float(np.cos(np.deg2rad(degrees)))
    made = group_alive(found, alive, threshold=threshold, linkage=linkage)
    return [rows.tolist() for rows in made]


def test_pairs_are_grouped_anew_without_a_search():
    told = []
    found = find_pairs(at_angles(0, 10, 20, 80, 85), 0.5, on_progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    assert found.lowest == 0.5
    alive = np.ones(5, bool)
    assert groups(found, alive, 11, "single") == [[0, 1, 2], [3, 4]]
    assert groups(found, alive, 11, "complete") == [[0, 1], [3, 4]]
    assert groups(found, alive, 6, "single") == [[3, 4]]
    # What was moved away connects nothing.
    alive[1] = False
    assert groups(found, alive, 11, "single") == [[3, 4]]
    assert groups(found, alive, 21, "single") == [[0, 2], [3, 4]]


def test_thousands_of_copies_are_one_group():
    index = at_angles(*[30] * 3000, 90)
    found = find_pairs(index, 0.9, on_progress=lambda share: None)
    assert len(found.rows) < 3000
    alive = np.ones(3001, bool)
    assert groups(found, alive, 1, "single") == [list(range(3000))]
    alive[:5] = False
    assert groups(found, alive, 1, "complete") == [list(range(5, 3000))]


def test_where_too_many_are_alike_the_most_similar_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MAX_PAIRS", 2)
    found = find_pairs(at_angles(0, 1, 3, 7), 0.5, on_progress=lambda share: None)
    assert len(found.rows) == 2
    assert found.lowest > 0.5
    assert (found.similarities >= found.lowest).all()
