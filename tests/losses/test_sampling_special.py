"""Sampling on inputs that could break it: duplicates, antipodes, other dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.sampling import (
    NEGATIVE_SAMPLINGS,
    sample_pairs,
)


def special_batch(unit_rows, name):
    x = unit_rows(6, 8, seed=0)
    if name == "duplicates":
        x[:] = x[0]
    if name == "antipodal":
        x[3:] = -x[:3]
    ids = np.zeros(6, int) if name == "one instance" else np.arange(6) // 2
    return x, ids


@pytest.mark.parametrize("sampling", NEGATIVE_SAMPLINGS)
@pytest.mark.parametrize("name", ["duplicates", "antipodal", "one instance"])
def test_special_embeddings_give_no_nan(name, sampling, weigh, draw, unit_rows):
    x, ids = special_batch(unit_rows, name)
    log_weights = np.asarray(
        weigh(jnp.asarray(x), jnp.asarray(ids, jnp.int32), sampling=sampling)
    )
    assert not np.isnan(log_weights).any() and not (log_weights == np.inf).any()
    pairs = draw(x, ids, sampling=sampling, max_positives=1)
    np.testing.assert_array_equal(pairs.mask, name != "one instance")
    assert pairs.negative.min() >= 0 and pairs.negative.max() < 6


def test_antipodal_pair_turns_the_reference_uniform(weigh, unit_rows):
    # The original's weight is infinite there: every other one is zero beside it.
    x, ids = special_batch(unit_rows, "antipodal")
    log_weights = weigh(
        jnp.asarray(x), jnp.asarray(ids, jnp.int32), sampling="reference"
    )
    other = ids[:, None] != ids[None, :]
    np.testing.assert_array_equal(log_weights, np.where(other, 0.0, -np.inf))


def test_single_sample(unit_rows, draw):
    pairs = draw(unit_rows(1, 8, seed=0), [3])
    assert pairs.mask.shape == (1, 1) and not np.any(pairs.mask)


def test_no_gradient_flows_through_the_choice(unit_rows):
    x, ids = jnp.asarray(unit_rows(6, 8, seed=0)), jnp.arange(6, dtype=jnp.int32) // 2

    def drawn(x):
        pairs = sample_pairs(
            jax.random.key(0),
            x,
            ids,
            negative_sampling="distance_weighted",
            group_size=6,
            max_positives=1,
        )
        return jnp.sum(x[pairs.negative]), pairs

    gradient, pairs = jax.jit(jax.grad(drawn, has_aux=True))(x)
    # Only through the gather: each row as often as it was drawn.
    times = np.bincount(np.asarray(pairs.negative).ravel(), minlength=6)
    np.testing.assert_array_equal(gradient, np.repeat(times[:, None], 8, axis=1))


def test_draws_do_not_depend_on_the_devices(unit_rows, draw_many):
    x, ids = unit_rows(48, 32, seed=6), np.arange(48) // 3
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    compiled = partial(
        draw_many, runs=1, group_size=16, max_positives=2, sampling="reference"
    )
    ids = jnp.asarray(ids, jnp.int32)
    alone = compiled(jnp.asarray(x), ids)
    shared = compiled(jax.device_put(x, split), jax.device_put(ids, split))
    jax.tree.map(np.testing.assert_array_equal, alone, shared)


def test_float64_embeddings_are_sampled_in_float64(unit_rows, weigh, draw):
    with jax.enable_x64(True):
        x = jnp.asarray(unit_rows(6, 8, seed=0), jnp.float64)
        pairs = draw(x, np.arange(6) // 2)
        weights = weigh(x, jnp.arange(6), sampling="reference")
    assert weights.dtype == np.float64
    assert pairs.positive.dtype == pairs.negative.dtype == np.int32
    np.testing.assert_array_equal(pairs.mask, [[True, False]] * 6)


def test_narrow_embeddings_are_weighted_in_float32(unit_rows, weigh):
    x, ids = jnp.asarray(unit_rows(6, 8, seed=0), jnp.bfloat16), jnp.arange(6)
    found = weigh(x, ids, sampling="reference")
    assert found.dtype == jnp.float32


def test_wrong_arguments_are_refused(unit_rows, draw):
    x, ids = unit_rows(10, 8, seed=0), np.arange(10) // 2
    with pytest.raises(ValueError, match=r"group size: found 4.*batch of 10"):
        draw(x, ids, group_size=4)
    with pytest.raises(ValueError, match=r"'hardest'.*reference, distance_weighted"):
        draw(x, ids, sampling="hardest")


@pytest.mark.parametrize("sampling", NEGATIVE_SAMPLINGS)
def test_samples_of_no_instance_change_nothing_for_the_others(
    sampling, weigh, draw, draw_many, unit_rows
):
    # The one of no instance in every three lies near the next: it would be drawn.
    x = unit_rows(18, 64, seed=5)
    ids = np.repeat(np.arange(6, dtype=np.int32), 3)
    ids[2::3] = -1
    x[2::3] = np.roll(x[::3], -1, axis=0) + 0.02 * unit_rows(6, 64, seed=6)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    seen = ids >= 0
    alone = weigh(x[seen], ids[seen], sampling=sampling)
    together = np.asarray(weigh(x, ids, sampling=sampling))
    np.testing.assert_allclose(together[np.ix_(seen, seen)], alone, atol=1e-3)
    assert (together[:, ~seen] == -np.inf).all()
    pairs = jax.tree.map(
        np.asarray,
        draw_many(x, ids, runs=20, group_size=18, max_positives=2, sampling=sampling),
    )
    assert (pairs.mask.sum(axis=2) == seen[None]).all()
    assert seen[pairs.positive[pairs.mask]].all()
    assert seen[pairs.negative[pairs.mask]].all()
    # Where all are of none, there is no pair, and no number that is none.
    none = draw(x, np.full(18, -1), group_size=18, sampling=sampling)
    assert not none.mask.any()
