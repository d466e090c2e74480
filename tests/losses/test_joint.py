"""The joint loss against recorded values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.joint import joint_loss
from multigrain_jax.losses.margin import margin_loss
from multigrain_jax.losses.sampling import Pairs

BATCH = 12


@pytest.fixture(scope="module")
def goldens(golden_dir):
    return dict(np.load(golden_dir / "functional" / "multi_criterion.npz"))


@pytest.fixture
def pairs(goldens):
    # Two positives for every anchor, anchors ascending.
    np.testing.assert_array_equal(goldens["anchor_idx"], np.arange(BATCH).repeat(2))
    return Pairs(
        jnp.asarray(goldens["positive_idx"].reshape(BATCH, 2), jnp.int32),
        jnp.asarray(goldens["negative_idx"].reshape(BATCH, 2), jnp.int32),
        jnp.ones((BATCH, 2), bool),
    )


def inputs(goldens, dtype):
    return (
        jnp.asarray(goldens["logits"], dtype),
        jnp.asarray(goldens["embedding"], dtype),
        jnp.asarray(goldens["beta"], dtype),
        jnp.asarray(goldens["classifier_target"], jnp.int32),
    )


@partial(jax.jit, static_argnames="weight")
def run(logits, embedding, beta, labels, pairs, weight):
    def loss_fn(x, e, b):
        output = joint_loss(x, labels, e, pairs, b, classification_weight=weight)
        return output.loss, output

    (_, output), gradients = jax.value_and_grad(
        loss_fn, argnums=(0, 1, 2), has_aux=True
    )(logits, embedding, beta)
    return output, gradients


@pytest.mark.parametrize("skip", ["skip", "noskip"])
@pytest.mark.parametrize("weight", [0, 0.3, 0.5, 1])
def test_loss_and_gradients_equal_the_original(goldens, pairs, weight, skip):
    case = f"sum/lambda{weight}/{skip}"
    with jax.enable_x64(True):
        logits, embedding, beta, labels = inputs(goldens, jnp.float64)
        without_margin = weight == 1 and skip == "skip"
        output, gradients = run(
            logits, embedding, beta, labels, None if without_margin else pairs, weight
        )
    np.testing.assert_allclose(output.loss, goldens[f"{case}/loss"], rtol=1e-8)
    assert goldens[f"{case}/has_margin"] == (not without_margin)
    if goldens[f"{case}/has_cross_entropy"]:
        np.testing.assert_allclose(
            output.cross_entropy, goldens[f"{case}/cross_entropy"], rtol=1e-8
        )
    if weight < 1:
        np.testing.assert_allclose(output.margin, goldens[f"{case}/margin"], rtol=1e-8)
    else:
        assert float(output.margin) == 0
    names = ("dlogits", "dembedding", "dbeta")
    for name, found in zip(names, gradients, strict=True):
        # NaN stands for "no gradient" in the recorded file.
        expected = np.nan_to_num(goldens[f"{case}/{name}"])
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_float32_loss_is_close_to_float64(goldens, pairs):
    output, _ = run(*inputs(goldens, jnp.float32), pairs, 0.5)
    expected = goldens["sum/lambda0.5/noskip/loss"]
    np.testing.assert_allclose(output.loss, expected, rtol=1e-6)


def test_cross_entropy_equals_a_loop(goldens):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    total = 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        total += np.log(np.sum(np.exp(row))) - row[label]
    output = joint_loss(logits, labels, embedding, None, beta, classification_weight=1)
    assert float(output.loss) == pytest.approx(total / BATCH, rel=1e-6)


def test_unlabelled_samples_have_neither_loss_nor_gradient(goldens, pairs):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    none = jnp.full_like(labels, -1)
    output, (dlogits, dembedding, _) = run(logits, embedding, beta, none, pairs, 0)
    expected = margin_loss(embedding, pairs, beta).loss
    assert float(output.loss) == float(output.margin) == float(expected)
    assert float(output.cross_entropy) == 0
    np.testing.assert_array_equal(dlogits, 0)
    assert np.isfinite(dembedding).all() and np.any(dembedding)
    _, (dlogits, _, _) = run(logits, embedding, beta, labels.at[3].set(-1), pairs, 0.5)
    np.testing.assert_array_equal(dlogits[3], 0)
    assert np.all(np.any(np.delete(dlogits, 3, axis=0), axis=1))


def test_weight_zero_ignores_overflowing_logits(goldens, pairs):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    output, gradients = run(logits * jnp.inf, embedding, beta, labels, pairs, 0)
    assert np.isfinite(output.loss)
    assert all(np.isfinite(g).all() for g in gradients)


def test_narrow_logits_give_a_float32_loss(goldens, pairs):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    output, _ = run(
        logits.astype(jnp.bfloat16),
        embedding.astype(jnp.bfloat16),
        beta,
        labels,
        pairs,
        0.5,
    )
    assert {part.dtype for part in output} == {jnp.dtype(jnp.float32)}


def test_wrong_weights_are_refused(goldens, pairs):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"classification_weight.*\[0, 1\]"):
            run(logits, embedding, beta, labels, pairs, weight)
    with pytest.raises(ValueError, match=r"0\.5 needs pairs"):
        run(logits, embedding, beta, labels, None, 0.5)


def test_infonce_takes_the_margins_place_and_koleo_joins(goldens):
    logits, embedding, beta, labels = inputs(goldens, jnp.float32)
    for weight in (0, 0.3, 1):
        found = joint_loss(
            logits,
            labels,
            embedding,
            None,
            beta,
            classification_weight=weight,
            infonce=jnp.float32(3.0),
            koleo=jnp.float32(-0.5),
            koleo_weight=0.1,
        )
        expected = weight * float(found.cross_entropy) + (1 - weight) * 3.0 - 0.05
        assert float(found.loss) == pytest.approx(expected, rel=1e-6)
        assert float(found.margin) == 0
