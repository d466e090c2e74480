"""Exact search and score normalisation against full sorts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.descriptors.index import (
    CHUNK,
    DescriptorIndex,
    ScoreNormalization,
    top_k_of_chunks,
)
from multigrain_jax.errors import InputError
from multigrain_jax.ops.refinement import REDUCTIONS, normalize_scores


def tied(rng, count, dim, dtype=np.float32):
    """Descriptors whose inner products are exact, with many ties."""
    return rng.integers(-1, 2, (count, dim)).astype(dtype)


def full_sort(queries, database, k, live=None):
    similarity = queries.astype(np.float64) @ database.astype(np.float64).T
    if live is not None:
        similarity[:, ~live] = -np.inf
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, rows, axis=1), rows


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_search_equals_a_full_sort_where_many_are_equal(k, dtype):
    rng = np.random.default_rng(0)
    database = tied(rng, 20_000, 256, dtype)
    database[5000:10_000] = database[:5000]
    queries = tied(rng, 7, 256)
    index = DescriptorIndex([database[:1], database[1:9000], database[9000:]])
    similarities, rows = index.search(queries, k, block_bytes=8 << 20)
    expected, expected_rows = full_sort(queries, database, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(similarities, expected)
    assert similarities.dtype == np.float32
    assert rows.dtype == np.int64
    # What makes this a test of ties.
    if k > 1:
        assert np.mean(np.diff(expected) == 0) > 0.3


def test_the_number_of_queries_and_the_size_of_blocks_change_nothing():
    rng = np.random.default_rng(1)
    database, queries = tied(rng, 5000, 16), tied(rng, 600, 16)
    index = DescriptorIndex([database])
    expected, expected_rows = full_sort(queries, database, 4)
    for block_bytes in (1, 1 << 20, 1 << 30):
        similarities, rows = index.search(queries, 4, block_bytes=block_bytes)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(similarities, expected)
    _, rows = index.search(queries[:1], 4)
    np.testing.assert_array_equal(rows, expected_rows[:1])
    assert index.search(queries[:0], 4)[1].shape == (0, 4)


def test_rows_that_are_not_live_are_not_found():
    rng = np.random.default_rng(2)
    database, queries = tied(rng, 3000, 8), tied(rng, 5, 8)
    live = rng.random(3000) < 0.5
    similarities, rows = DescriptorIndex([database], live=live).search(queries, 20)
    expected, expected_rows = full_sort(queries, database, 20, live)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(similarities, expected)


def test_of_too_few_rows_the_rest_is_empty():
    database = np.eye(3, dtype=np.float32)
    live = np.array([True, False, True])
    index = DescriptorIndex([database], live=live)
    similarities, rows = index.search(np.array([[1, 2, 3]]), 4)
    np.testing.assert_array_equal(rows, [[2, 0, -1, -1]])
    np.testing.assert_array_equal(similarities, [[3, 1, -np.inf, -np.inf]])


def test_the_chunked_top_k_is_that_of_the_library():
    rng = np.random.default_rng(3)
    similarity = jnp.asarray(rng.integers(0, 4, (6, 40 * CHUNK)).astype(np.float32))
    similarity = similarity.at[0, CHUNK:].set(-jnp.inf)
    for k in (1, 7, 39):
        for ours, theirs in zip(
            top_k_of_chunks(similarity, k), jax.lax.top_k(similarity, k), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_real_valued_descriptors_are_ranked_as_in_float64():
    rng = np.random.default_rng(4)
    database = rng.standard_normal((4000, 64)).astype(np.float32)
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    queries = database[:50] + rng.standard_normal((50, 64)).astype(np.float32) / 20
    similarities, rows = DescriptorIndex([database]).search(queries, 10)
    expected, expected_rows = full_sort(queries, database, 10)
    # The rounding of 64 products and sums in float32.
    np.testing.assert_allclose(similarities, expected, atol=64 * 2**-24)
    assert np.mean(rows == expected_rows) > 0.99


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_normalised_scores_are_those_of_the_whole_matrix(reduction):
    rng = np.random.default_rng(5)
    database, training, queries = (tied(rng, n, 8) for n in (500, 300, 9))
    live = rng.random(300) < 0.8
    normalization = ScoreNormalization(
        DescriptorIndex([training], live=live), 4, weight=1.5, reduction=reduction
    )
    index = DescriptorIndex([database])
    plain, plain_rows = index.search(queries, 6)
    normalized, rows = index.search(queries, 6, normalization=normalization)
    np.testing.assert_array_equal(rows, plain_rows)
    expected = normalize_scores(
        np.asarray(plain),
        queries @ training[live].T,
        weight=1.5,
        num_neighbours=4,
        reduction=reduction,
    )
    np.testing.assert_array_equal(normalized, expected)
    for query in range(len(queries)):
        scores = sorted(training[live] @ queries[query], reverse=True)[:4]
        taken = scores[3] if reduction == "nth" else sum(scores) / 4
        np.testing.assert_array_equal(normalized[query], plain[query] - 1.5 * taken)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((2, 4)), 1, r"shape \(2, 4\), expected \(Q, 3\)"),
        (np.zeros(3), 1, r"shape \(3,\)"),
        (
            np.array([[1, 2, 3], [4, np.nan, 6]]),
            1,
            "1 of 2 rows, the first .* 1, .* le",
        ),
        (np.zeros((2, 3)), 0, "k: found 0, .* raise it"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries, k, message):
    index = DescriptorIndex([np.eye(3, dtype=np.float32)])
    with pytest.raises(InputError, match=message):
        index.search(queries, k)


def test_more_training_images_than_there_are_cannot_be_asked_for():
    index = DescriptorIndex([np.eye(3, dtype=np.float32)])
    normalization = ScoreNormalization(index, num_neighbours=10, weight=2.0)
    with pytest.raises(InputError, match=r"s: found 10, expected 1 to 3, .*; lower"):
        index.search(np.eye(3), 1, normalization=normalization)


def test_a_block_of_several_shards_is_read_whole(tmp_path):
    array = np.arange(60, dtype=np.float16).reshape(20, 3)
    paths = []
    for number, (start, end) in enumerate([(0, 7), (7, 8), (8, 20)]):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], array[start:end])
    index = DescriptorIndex(paths)
    for first, count in [(0, 20), (3, 2), (6, 3), (7, 1), (8, 4), (5, 30), (19, 1)]:
        block = index.read(first, count)
        inside = array[first : first + count]
        np.testing.assert_array_equal(block[: len(inside)], inside)
        assert block.shape == (count, 3)
        assert not block[len(inside) :].any()
