"""Squared distances against the plainest loop, and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.ops.distances import pairwise_squared_distances


def test_distances_equal_a_loop():
    x = np.random.default_rng(0).normal(size=(7, 5))
    expected = np.zeros((7, 7))
    for i in range(7):
        for j in range(7):
            expected[i, j] = np.sum((x[i] - x[j]) ** 2)
    with jax.enable_x64(True):
        found = pairwise_squared_distances(jnp.asarray(x))
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_identical_rows_have_no_negative_squared_distance():
    # A thousand rounded products per entry: without the clamp some end below zero.
    row = np.random.default_rng(1).normal(size=(1, 1000)).astype(np.float32)
    noise = 1e-7 * np.random.default_rng(2).normal(size=(32, 1000)).astype(np.float32)
    x = jnp.asarray(row + noise)
    gram = x @ x.T
    unclamped = jnp.diagonal(gram)[:, None] + jnp.diagonal(gram)[None] - 2 * gram
    assert float(unclamped.min()) < 0
    assert float(pairwise_squared_distances(x).min()) == 0


def test_narrow_input_is_computed_in_float32():
    x = jnp.asarray([[300.0, 1.0], [300.0, 2.0]], jnp.bfloat16)
    found = pairwise_squared_distances(x)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [[0, 1], [1, 0]])
