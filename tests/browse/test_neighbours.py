"""Neighbours of one query, against the plainest sort."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from multigrain_jax.browse.neighbours import NeighbourSearch
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError


def make(vectors, *, paths=None, resident=True):
    index = DescriptorIndex([np.asarray(vectors, np.float32)])
    names = paths or [f"row {n}" for n in range(len(index))]
    collection = SimpleNamespace(index=index, path=lambda row: names[row])
    return NeighbourSearch(collection, resident_bytes=1 << 20 if resident else 0)


@pytest.mark.parametrize("resident", [True, False])
def test_neighbours_are_those_of_a_plain_sort(resident):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (300, 3))  # with many ties
    within = rng.random(300) < 0.7
    search = make(vectors, resident=resident)
    query = np.array([1, 2, -1], np.float32)
    products = vectors @ query
    rows = sorted(np.flatnonzero(within), key=lambda row: (-products[row], row))
    for count in (1, 7, 299):
        found = search.find(query, count, within=within)
        assert [each.row for each in found] == rows[:count]
        assert [each.similarity for each in found] == products[rows[:count]].tolist()
    np.testing.assert_array_equal(search.descriptor(5), vectors[5])


def test_links_to_one_photo_are_found_once(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    paths = [str(tmp_path / "a")]
    for n in range(40):
        os.link(tmp_path / "a", tmp_path / f"link {n}")
        paths.append(str(tmp_path / f"link {n}"))
    paths.append(str(tmp_path / "b"))
    vectors = np.linspace(1, 0.5, len(paths))[:, None]
    search = make(vectors, paths=paths)
    within = np.ones(len(paths), bool)
    query = np.ones(1, np.float32)
    assert [n.row for n in search.find(query, 2, within=within)] == [0, 41]
    assert [n.row for n in search.find(query, 2, within=within, without=3)] == [41]


def test_nothing_is_found_where_nothing_is_to_be(tmp_path):
    search = make(np.eye(3))
    assert search.find(np.ones(3), 2, within=np.zeros(3, bool)) == []


@pytest.mark.parametrize("query", [np.ones(2), np.ones((1, 3)), [1, 2, np.nan]])
def test_what_is_no_descriptor_is_refused(query):
    with pytest.raises(InputError, match="expected 3 finite numbers"):
        make(np.eye(3)).find(np.asarray(query), 1, within=np.ones(3, bool))
