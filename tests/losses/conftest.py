"""What the tests of negative sampling share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.sampling import negative_log_weights, sample_pairs


@partial(jax.jit, static_argnames="sampling")
def _weigh(x, ids, *, sampling):
    return negative_log_weights(x, ids, negative_sampling=sampling)


def _unit_rows(rows, dim, seed, spread=1.0):
    """Rows around one direction; the smaller `spread`, the nearer to each other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, dim)) + spread * rng.normal(size=(rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@partial(jax.jit, static_argnames=("group_size", "max_positives", "sampling", "runs"))
def _draw_many(x, ids, *, runs, group_size, max_positives, sampling):
    sample = partial(
        sample_pairs,
        negative_sampling=sampling,
        group_size=group_size,
        max_positives=max_positives,
    )
    keys = jax.random.split(jax.random.key(1), runs)
    return jax.vmap(sample, in_axes=(0, None, None))(keys, x, ids)


def _draw(x, ids, *, group_size=64, max_positives=2, sampling="reference"):
    pairs = _draw_many(
        jnp.asarray(x),
        jnp.asarray(ids, jnp.int32),
        runs=1,
        group_size=group_size,
        max_positives=max_positives,
        sampling=sampling,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], pairs)


@pytest.fixture
def unit_rows():
    """Makes unit rows around one direction."""
    return _unit_rows


@pytest.fixture
def weigh():
    """The compiled log-weights."""
    return _weigh


@pytest.fixture
def draw():
    """One draw of pairs, as NumPy arrays."""
    return _draw


@pytest.fixture
def draw_many():
    """Many draws of pairs, with different keys."""
    return _draw_many
