"""Queries and the photos that are nearest to them, against plain loops."""

import numpy as np
import pytest
from helpers.descriptors import stored_descriptors

from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.tasks.neighbours import expand_by_neighbours, nearest_photos


@pytest.fixture
def index(database):
    return DescriptorIndex.open(database)


def loop(stored, query, own, *, count, alpha):
    """Walking down a sorted list of all others."""
    others = [(float(query @ d), d) for path, d in stored.items() if path != own]
    total = query.astype(np.float64)
    for similarity, descriptor in sorted(others, key=lambda pair: -pair[0])[:count]:
        total = total + max(similarity, 0) ** alpha * descriptor
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(("count", "alpha"), [(1, 0.0), (3, 3.0), (50, 1.0)])
def test_queries_are_joined_by_their_nearest_photos_but_themselves(
    index, database, count, alpha
):
    stored = stored_descriptors(database)
    paths = [*sorted(stored)[-3:], "/elsewhere/query.png"]
    queries = np.stack([stored[path] for path in [*paths[:3], paths[0]]])
    found = expand_by_neighbours(
        index, paths, queries, num_neighbours=count, alpha=alpha
    )
    assert found.dtype == np.float32
    for row, query, path in zip(found, queries, paths, strict=True):
        expected = loop(stored, query, path, count=count, alpha=alpha)
        np.testing.assert_allclose(row, expected, atol=2e-6)
    # What is in the collection joins a query from elsewhere.
    assert np.abs(found[0] - found[3]).max() > 1e-6


def test_rows_and_paths_are_those_of_the_index(index, database):
    stored = stored_descriptors(database)
    paths = sorted(stored)[:2]
    queries = np.stack([stored[path] for path in paths])
    for path, neighbours in zip(
        paths, nearest_photos(index, paths, queries, k=4), strict=True
    ):
        assert len(neighbours) == 4
        for neighbour in neighbours:
            assert neighbour.path != path
            own = stored[neighbour.path]
            np.testing.assert_array_equal(index.read(neighbour.row, 1)[0], own)
            similarity = float(stored[path] @ own)
            assert neighbour.similarity == pytest.approx(similarity, abs=2e-6)
