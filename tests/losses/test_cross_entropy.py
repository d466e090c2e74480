"""The cross-entropy with smoothed labels, against a loop and its properties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.cross_entropy import mean_cross_entropy
from multigrain_jax.ops.mixing import MixedLabels

LABELS = np.array([2, 0, -1, 4, 1], np.int32)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


@partial(jax.jit, static_argnames="smoothing")
def value_and_gradient(logits, labels, *, smoothing):
    return jax.value_and_grad(
        lambda x: mean_cross_entropy(x, labels, label_smoothing=smoothing)
    )(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_value_and_gradient_equal_those_of_the_smoothed_distribution(logits, smoothing):
    value, gradient = value_and_gradient(logits, LABELS, smoothing=smoothing)
    x = logits.astype(np.float64)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    total, expected = 0.0, np.zeros_like(x)
    for row, label in enumerate(LABELS):
        if label >= 0:
            q = np.full(6, smoothing / 6)
            q[label] += 1 - smoothing
            total -= np.sum(q * np.log(p[row]))
            expected[row] = (p[row] - q) / 5
    assert float(value) == pytest.approx(total / 5, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    assert not gradient[2].any()  # it has no label


def test_without_smoothing_nothing_is_computed_for_it(logits):
    def equations(smoothing):
        loss = partial(mean_cross_entropy, label_smoothing=smoothing)
        return str(jax.make_jaxpr(loss)(logits, LABELS)).count("\n")

    assert equations(0.0) < equations(0.1)


def test_narrow_logits_give_a_float32_loss(logits):
    loss = mean_cross_entropy(
        jnp.asarray(logits, jnp.bfloat16), jnp.asarray(LABELS), label_smoothing=0.1
    )
    assert loss.dtype == jnp.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_of_a_mixture_it_is_that_of_the_mixed_distribution(logits, smoothing):
    # One has no label, one no other label; one is not mixed, one all the other.
    other = np.array([1, 0, 3, -1, 5], np.int32)
    share = np.array([0.25, 1.0, 0.5, 0.75, 0.0], np.float32)
    loss = partial(mean_cross_entropy, label_smoothing=smoothing)
    mixed = MixedLabels(jnp.asarray(other), jnp.asarray(share))
    value, gradient = jax.value_and_grad(loss)(logits, LABELS, mixed=mixed)
    x = logits.astype(np.float64)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    total, expected = 0.0, np.zeros_like(x)
    for row in range(5):
        for label, weight in ((LABELS[row], share[row]), (other[row], 1 - share[row])):
            if label >= 0:
                q = np.full(6, smoothing / 6)
                q[label] += 1 - smoothing
                total -= weight * np.sum(q * np.log(p[row]))
                expected[row] += weight * (p[row] - q) / 5
    assert float(value) == pytest.approx(total / 5, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_a_share_of_1_is_no_mixture(logits):
    mixed = MixedLabels(jnp.asarray(LABELS[::-1]), jnp.ones(5))
    labels = jnp.asarray(LABELS)
    whole = mean_cross_entropy(logits, labels, mixed=mixed)
    assert float(whole) == float(mean_cross_entropy(logits, labels))
