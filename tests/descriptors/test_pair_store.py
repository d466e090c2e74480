"""The most similar pairs are kept, in whatever order they come."""

import numpy as np
import pytest

from multigrain_jax.descriptors.pair_store import PairStore


@pytest.mark.parametrize("levels", [1, 4, 10_000])
@pytest.mark.parametrize("limit", [1, 30, 437, 2000])
def test_the_most_similar_pairs_are_kept(limit, levels):
    rng = np.random.default_rng(levels)
    pairs = np.array([(a, b) for a in range(40) for b in range(a + 1, 40)])
    pairs = rng.permutation(pairs)
    similarities = (rng.integers(0, levels, len(pairs)) / levels).astype(np.float32)
    store = PairStore(limit)
    for part in np.array_split(np.arange(len(pairs)), 13):
        store.add(pairs[part], similarities[part])
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -similarities))[:limit]
    kept = order[np.lexsort((pairs[order, 1], pairs[order, 0]))]
    found, found_similarities = store.sorted()
    np.testing.assert_array_equal(found, pairs[kept])
    np.testing.assert_array_equal(found_similarities, similarities[kept])
    if limit < len(pairs):
        assert store.floor == similarities[order].min()
    else:
        assert store.floor == -np.inf


def test_a_store_may_be_empty():
    pairs, similarities = PairStore(3).sorted()
    assert pairs.shape == (0, 2) and similarities.shape == (0,)
