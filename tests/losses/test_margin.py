"""The margin loss against recorded values and gradients, and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.margin import margin_loss
from multigrain_jax.losses.sampling import Pairs

CASES = ("mixed_d16", "mixed_d128", "beta1.2_d32", "inactive", "same_point")


@pytest.fixture(scope="module")
def goldens(golden_dir):
    return dict(np.load(golden_dir / "functional" / "margin_loss.npz"))


def as_pairs(batch, anchors, positives, negatives):
    """Lists of triples as rows per anchor, padded with indices that are masked."""
    columns = max(np.bincount(anchors))
    positive = np.zeros((batch, columns), np.int32)
    negative = np.zeros((batch, columns), np.int32)
    mask = np.zeros((batch, columns), bool)
    filled = np.zeros(batch, int)
    for a, p, n in zip(anchors, positives, negatives, strict=True):
        positive[a, filled[a]], negative[a, filled[a]] = p, n
        mask[a, filled[a]] = True
        filled[a] += 1
    return Pairs(jnp.asarray(positive), jnp.asarray(negative), jnp.asarray(mask))


def golden_pairs(goldens, case):
    return as_pairs(
        len(goldens[f"{case}/embedding"]),
        *(goldens[f"{case}/{k}_idx"] for k in ("anchor", "positive", "negative")),
    )


@jax.jit
def value_and_gradients(embedding, beta, pairs):
    def loss_fn(x, b):
        output = margin_loss(x, pairs, b)
        return output.loss, output.num_active_pairs

    return jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)(embedding, beta)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_original_in_float64(goldens, case):
    with jax.enable_x64(True):
        (loss, active), (dembedding, dbeta) = value_and_gradients(
            jnp.asarray(goldens[f"{case}/embedding"], jnp.float64),
            # The recorded float64 run held a float32 beta.
            jnp.asarray(np.float32(goldens[f"{case}/beta"]), jnp.float64),
            golden_pairs(goldens, case),
        )
    sums = {k: goldens[f"{case}/sum/{k}_f64"] for k in ("loss", "dembedding", "dbeta")}
    np.testing.assert_allclose(loss, sums["loss"], rtol=1e-8)
    np.testing.assert_allclose(dembedding, sums["dembedding"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(dbeta, sums["dbeta"], rtol=1e-8, atol=1e-10)
    assert int(active) == goldens[f"{case}/pair_cnt_sum"]


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_original_in_float32(goldens, case):
    (loss, _), (dembedding, dbeta) = value_and_gradients(
        jnp.asarray(goldens[f"{case}/embedding"]),
        jnp.asarray(goldens[f"{case}/beta"], jnp.float32),
        golden_pairs(goldens, case),
    )
    sums = {k: goldens[f"{case}/sum/{k}"] for k in ("loss", "dembedding", "dbeta")}
    np.testing.assert_allclose(loss, sums["loss"], rtol=2e-5)
    np.testing.assert_allclose(dembedding, sums["dembedding"], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(dbeta, sums["dbeta"], rtol=2e-5, atol=2e-6)


def random_problem(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(9, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    positive, negative = rng.integers(0, 9, (2, 9, 3)).astype(np.int32)
    return x, positive, negative, rng.uniform(size=(9, 3)) < 0.7


@pytest.mark.parametrize("margin", [0.2, 0.5])
def test_loss_equals_a_loop(margin):
    x, positive, negative, mask = random_problem(0)
    beta, total, count = 1.1, 0.0, 0
    for i in range(9):
        for k in range(3):
            if not mask[i, k]:
                continue
            d_ap = np.sqrt(np.sum((x[i] - x[positive[i, k]]) ** 2) + 1e-8)
            d_an = np.sqrt(np.sum((x[i] - x[negative[i, k]]) ** 2) + 1e-8)
            for term in (d_ap - beta + margin, beta - d_an + margin):
                total += max(0.0, term)
                count += term > 0
    pairs = Pairs(*(jnp.asarray(a) for a in (positive, negative, mask)))
    found = margin_loss(
        jnp.asarray(x, jnp.float32), pairs, jnp.float32(beta), margin=margin
    )
    assert int(found.num_active_pairs) == count > 0
    assert float(found.loss) == pytest.approx(total / count, rel=1e-6)


def test_masked_pairs_add_nothing_and_have_no_gradient():
    x, positive, negative, mask = random_problem(1)
    x, beta = jnp.asarray(x, jnp.float32), jnp.float32(1.1)
    # Where a pair is masked, any index may stand there, the anchor's own included.
    own = np.arange(9, dtype=np.int32)[:, None]
    results = [
        value_and_gradients(
            x,
            beta,
            Pairs(
                jnp.asarray(np.where(mask, positive, filler)),
                jnp.asarray(np.where(mask, negative, filler)),
                jnp.asarray(mask),
            ),
        )
        for filler in (own, 0)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), *results
    )


def test_no_pairs_give_zero_and_zero_gradients():
    pairs = Pairs(
        jnp.zeros((4, 2), jnp.int32),
        jnp.zeros((4, 2), jnp.int32),
        jnp.zeros((4, 2), bool),
    )
    (loss, active), gradients = value_and_gradients(
        jnp.ones((4, 3)), jnp.float32(1.2), pairs
    )
    assert (float(loss), float(active)) == (0, 0)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), gradients)


def test_coinciding_embeddings_have_finite_gradients():
    pairs = as_pairs(4, [0, 1], [1, 0], [2, 3])
    (loss, active), gradients = value_and_gradients(
        jnp.full((4, 3), 0.5), jnp.float32(1.2), pairs
    )
    # Both negatives lie on their anchors, at the distance of the epsilon's root.
    assert float(loss) == pytest.approx(1.2 - 1e-4 + 0.2, rel=1e-6)
    assert float(active) == 2
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_narrow_embeddings_give_a_float32_loss():
    x, positive, negative, mask = random_problem(2)
    pairs = Pairs(*(jnp.asarray(a) for a in (positive, negative, mask)))
    loss = margin_loss(jnp.asarray(x, jnp.bfloat16), pairs, jnp.float32(1.2)).loss
    assert loss.dtype == jnp.float32
