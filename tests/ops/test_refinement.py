"""What is done to descriptors and scores before the ranking, against plain loops."""

import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.ops.refinement import (
    REDUCTIONS,
    expand_queries,
    indices_of_largest,
    merge_scales,
    normalize_scores,
    query_blocks,
    require_neighbours,
    score_offsets,
)


def unit_rows(rng, count, width=5):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def descriptors():
    rng = np.random.default_rng(4)
    return {name: unit_rows(rng, n) for name, n in (("q", 9), ("x", 12), ("t", 7))}


REDUCE = {"nth": min, "mean": np.mean}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_normalized_scores_equal_a_loop(descriptors, reduction):
    similarity = descriptors["q"] @ descriptors["x"].T
    training = descriptors["q"] @ descriptors["t"].T
    for weight, count in ((2.0, 3), (0.5, 1), (1.0, 7)):
        found = normalize_scores(
            similarity,
            training,
            weight=weight,
            num_neighbours=count,
            reduction=reduction,
        )
        for query in range(9):
            offset = weight * REDUCE[reduction](sorted(training[query])[-count:])
            np.testing.assert_allclose(
                found[query], similarity[query] - offset, rtol=0, atol=1e-6
            )


@pytest.mark.parametrize("count", [0, 8])
def test_fewer_unrelated_images_than_neighbours_are_refused(descriptors, count):
    training = descriptors["q"] @ descriptors["t"].T
    message = f"^score_normalization.num_neighbours: found {count}, expected 1 to 7, .*"
    with pytest.raises(InputError, match=f"{message}; lower it, or give more"):
        normalize_scores(training, training, weight=2.0, num_neighbours=count)
    require_neighbours(7, 7, key="--n")
    with pytest.raises(InputError, match=r"^--n: found 1, expected 1 to 0"):
        require_neighbours(1, 0, key="--n")


def test_the_default_is_the_challenges_nth_largest_by_hand():
    similarity = np.float32([[0.75, 0.5], [0.25, 1.0]])
    training = np.float32([[0.125, 0.5, -0.25, 0.375], [0.0, 0.25, 0.25, 0.5]])
    # The third largest are 0.125 and 0.25, the means of three 1/3.
    found = normalize_scores(similarity, training, weight=2.0, num_neighbours=3)
    np.testing.assert_array_equal(found, np.float32([[0.5, 0.25], [-0.25, 0.5]]))
    means = normalize_scores(
        similarity, training, weight=2.0, num_neighbours=3, reduction="mean"
    )
    np.testing.assert_allclose(means, similarity - np.float32(2 / 3), atol=1e-7)


def test_offsets_depend_on_the_nearest_alone_and_not_on_their_order():
    rng = np.random.default_rng(6)
    nearest = rng.normal(size=(5, 10)).astype(np.float16)
    nth, mean = (
        score_offsets(nearest, weight=2.0, reduction=reduction)
        for reduction in REDUCTIONS
    )
    assert nth.dtype == mean.dtype == np.float32
    assert np.all(nth < mean)
    shuffled = rng.permuted(nearest, axis=1)
    for reduction, expected in zip(REDUCTIONS, (nth, mean), strict=True):
        found = score_offsets(shuffled, weight=2.0, reduction=reduction)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    # Where all are equal both are what all are.
    same = np.full((2, 4), 0.25, np.float32)
    for reduction in REDUCTIONS:
        found = score_offsets(same, weight=1.5, reduction=reduction)
        np.testing.assert_array_equal(found, np.float32([0.375, 0.375]))
    # Nothing that is nearer than the n-th changes it, as long as it stays nearer.
    nearer = nearest.copy()
    nearer[nearest > nearest.min(axis=1, keepdims=True)] += np.float16(1)
    found = score_offsets(nearer, weight=2.0, reduction="nth")
    np.testing.assert_array_equal(found, nth)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_expanded_queries_equal_a_loop(descriptors, alpha, block_bytes):
    queries, database = descriptors["q"], descriptors["x"]
    itself = np.array([-1, 3, -1, -1, 0, -1, 7, -1, -1])
    found = expand_queries(
        queries,
        database,
        num_neighbours=4,
        alpha=alpha,
        itself=itself,
        block_bytes=block_bytes,
    )
    for query in range(9):
        values = database.astype(np.float64) @ queries[query]
        others = [i for i in range(12) if i != itself[query]]
        nearest = sorted(others, key=lambda i: (-values[i], i))[:4]
        total = queries[query].astype(np.float64)
        for image in nearest:
            if values[image] > 0:
                total = total + values[image] ** alpha * database[image]
        expected = total / np.linalg.norm(total)
        np.testing.assert_allclose(found[query], expected, rtol=0, atol=2e-6)
    assert found.dtype == np.float32


def test_expansion_leaves_zeros_and_its_arguments_alone(descriptors):
    queries, database = descriptors["q"].copy(), descriptors["x"].copy()
    queries[2] = 0
    found = expand_queries(queries, database, num_neighbours=3, alpha=3.0)
    assert not found[2].any()
    np.testing.assert_array_equal(database, descriptors["x"])
    np.testing.assert_array_equal(
        np.delete(queries, 2, 0), np.delete(descriptors["q"], 2, 0)
    )


def test_merged_scales_are_the_unit_mean():
    rng = np.random.default_rng(0)
    # Of different lengths: the mean is taken before the length is made one.
    scales = [rng.normal(size=(4, 6)).astype(np.float32) * s for s in (1, 5, 20)]
    found = merge_scales(scales)
    mean = (scales[0] + scales[1] + scales[2]) / 3
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    zeros = merge_scales([np.zeros((1, 6), np.float32)])
    assert not zeros.any()


def test_the_largest_come_in_index_order_among_equals():
    rng = np.random.default_rng(0)
    for count in (1, 3, 10, 60):
        scores = rng.integers(0, 5, 40).astype(np.float32)
        scores[rng.random(40) < 0.3] = -np.inf
        expected = sorted(
            (i for i in range(40) if scores[i] > -np.inf), key=lambda i: (-scores[i], i)
        )
        assert list(indices_of_largest(scores, count)) == expected[:count]


@pytest.mark.parametrize("block_bytes", [1, 4 * 12 * 2, 1 << 20])
def test_blocks_cover_every_query_once(descriptors, block_bytes):
    database = descriptors["x"]
    blocks = list(query_blocks(descriptors["q"], (database, None), block_bytes))
    rows = [row for block in blocks for row in range(9)[block]]
    assert rows == list(range(9))
    # At least one query; else no more than there is room for.
    longest = max(len(range(9)[block]) for block in blocks)
    assert longest == 1 or 4 * 12 * longest <= block_bytes
