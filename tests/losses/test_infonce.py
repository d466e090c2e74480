"""InfoNCE against a plain loop, and at its edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.instance_losses import (
    check_devices_change_nothing,
    check_samples_of_no_instance_do_not_count,
)

from multigrain_jax.losses.infonce import infonce_loss

# Three, two and one view; instance 4 is cut by a group's end.
IDS = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 5, 5], np.int32)


@partial(jax.jit, static_argnames=("temperature", "group_size"))
def value_and_gradient(x, ids, *, temperature=0.05, group_size=64):
    return jax.value_and_grad(infonce_loss)(
        x, ids, temperature=temperature, group_size=group_size
    )


def by_loop(x, ids, temperature, group_size):
    """The definition, anchor by anchor and positive by positive."""
    means = []
    for i in range(len(x)):
        start = i // group_size * group_size
        group = [j for j in range(start, min(start + group_size, len(x))) if j != i]
        score = {j: x[i] @ x[j] / temperature for j in group}
        positives = [j for j in group if ids[j] == ids[i]]
        repelled = sum(np.exp(score[j]) for j in group if ids[j] != ids[i])
        if positives and repelled:
            logs = [
                np.log(np.exp(score[p]) / (np.exp(score[p]) + repelled))
                for p in positives
            ]
            means.append(-np.mean(logs))
    return np.mean(means)


@pytest.mark.parametrize("group_size", [4, 8, 12, 64])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_the_loss_equals_a_loop(unit_rows, temperature, group_size):
    x = unit_rows(24, 16, 0)
    ids = np.concatenate([IDS, IDS + 6]).astype(np.int32)
    found, _ = value_and_gradient(
        x, ids, temperature=temperature, group_size=group_size
    )
    expected = by_loop(x.astype(np.float64), ids, temperature, group_size)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_views_of_one_instance_do_not_repel_each_other():
    # Three views in one place, far from all others: nothing is left to gain.
    x = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    value, gradient = value_and_gradient(x, IDS[[0, 0, 0, 3, 3, 3]])
    assert float(value) < 1e-7
    assert np.abs(gradient).max() < 1e-6


def test_a_step_down_brings_views_together_and_others_apart(unit_rows):
    x, ids = unit_rows(12, 8, 1), np.repeat(np.arange(4, dtype=np.int32), 3)
    _, gradient = value_and_gradient(x, ids, temperature=0.2)
    moved = x - 0.05 * np.asarray(gradient)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    same = ids[:, None] == ids[None, :]
    views = same & ~np.eye(12, dtype=bool)

    def contrast(vectors):
        scores = vectors @ vectors.T
        return scores[views].mean() - scores[~same].mean()

    assert contrast(moved) > contrast(x)


@pytest.mark.parametrize("ids", [np.arange(6), np.zeros(6), [0, 0, 0, 0, 0, 1]])
def test_anchors_without_a_positive_or_a_negative_do_not_count(unit_rows, ids):
    x, ids = unit_rows(6, 8, 2), np.asarray(ids, np.int32)
    value, gradient = value_and_gradient(x, ids)
    assert np.isfinite(gradient).all()
    pairs_exist = len(set(ids)) == 2
    assert bool(value > 0) == pairs_exist
    assert np.any(gradient) == pairs_exist


def test_duplicates_of_other_instances_have_a_finite_gradient():
    x = np.eye(8, dtype=np.float32)[[0] * 6]
    value, gradient = value_and_gradient(x, IDS[:6], temperature=0.01)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_narrow_embeddings_give_a_float32_loss(unit_rows):
    x = jnp.asarray(unit_rows(12, 8, 3), jnp.bfloat16)
    assert value_and_gradient(x, IDS)[0].dtype == jnp.float32


# 4 nests in the shards of 2 devices and not of 8; 8 in neither's.
@pytest.mark.parametrize("group_size", [4, 8])
def test_the_groups_decide_and_not_the_devices(unit_rows, group_size):
    x = unit_rows(24, 16, 4)
    ids = np.concatenate([IDS, IDS + 6]).astype(np.int32)
    check_devices_change_nothing(value_and_gradient, x, ids, group_size=group_size)


def test_samples_of_no_instance_do_not_count(unit_rows):
    check_samples_of_no_instance_do_not_count(value_and_gradient, unit_rows(24, 16, 3))
