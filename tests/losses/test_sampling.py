"""Sampling against recorded probabilities, plain loops and its own statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.losses.sampling import (
    NEGATIVE_SAMPLINGS,
)

CASES = (
    "d8_b12",
    "d128_b48",
    "d2048_b24",
    "d2048close_b24",
    "d512close_b36",
    "cut1_d128_b13",
    "cut2_d128_b14",
    "cutfirst_d128_b16",
    "shuffled_d128_b18",
    "nonegative_d128_b12",
    "onenegative_d128_b12",
    "underflow_d2048_b12",
)


@pytest.fixture(scope="module")
def goldens(golden_dir):
    return dict(np.load(golden_dir / "functional" / "distance_weighted_sampling.npz"))


def weigh_golden(weigh, goldens, case, sampling, dtype=jnp.float32):
    embedding = jnp.asarray(goldens[f"{case}/embedding"], dtype)
    ids = jnp.asarray(goldens[f"{case}/target"], jnp.int32)
    return weigh(embedding, ids, sampling=sampling)


def softmax(log_weights):
    """Probabilities in NumPy, which keeps subnormal numbers."""
    log_weights = np.asarray(log_weights)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def loop_probabilities(x, ids, *, negative_sampling):
    """The formula of the module's docstring, one entry after the other, in float64."""
    group, dim = x.shape
    log_weight = np.zeros((group, group))
    candidate = np.zeros((group, group), bool)
    for i in range(group):
        for j in range(group):
            d = 1.0 if i == j else np.sqrt(np.sum((x[i] - x[j]) ** 2))
            candidate[i, j] = ids[i] != ids[j] and d < 1.4
            d = max(d, 0.5)
            log_weight[i, j] = (2 - dim) * np.log(d)
            log_weight[i, j] -= (dim - 3) / 2 * np.log(1 - d * d / 4)
    if negative_sampling == "reference":
        candidate &= log_weight - log_weight.max() > -103.97
    probabilities = np.zeros((group, group))
    for i in range(group):
        if candidate[i].any():
            best = log_weight[i, candidate[i]].max()
            probabilities[i, candidate[i]] = np.exp(log_weight[i, candidate[i]] - best)
        else:
            probabilities[i] = ids != ids[i]
        probabilities[i] /= max(probabilities[i].sum(), 1e-300)
    return probabilities


@pytest.mark.parametrize("case", CASES)
def test_reference_probabilities_equal_the_original(goldens, case, weigh):
    log_weights = np.asarray(weigh_golden(weigh, goldens, case, "reference"))
    expected = goldens[f"{case}/probs"]
    # Exactly the original's candidates, subnormal probabilities included.
    np.testing.assert_array_equal(log_weights > -np.inf, expected > 0)
    # log w is D times the logarithm of a distance rounded to float32.
    tolerance = goldens[f"{case}/embedding"].shape[1] * np.finfo(np.float32).eps
    np.testing.assert_allclose(softmax(log_weights), expected, rtol=0, atol=tolerance)
    target = goldens[f"{case}/target"]
    other = target[:, None] != target[None, :]
    uniform_row = np.all(np.where(other, log_weights == 0, True), axis=1)
    np.testing.assert_array_equal(uniform_row, goldens[f"{case}/uniform_row"])
    num_candidates = np.sum(log_weights > -np.inf, axis=1)
    np.testing.assert_array_equal(
        num_candidates < goldens[f"{case}/n_draw"],
        goldens[f"{case}/with_replacement_row"],
    )


def test_goldens_reach_the_special_rows(goldens):
    rows = {
        name: sum(int(goldens[f"{case}/{name}"].sum()) for case in CASES)
        for name in ("uniform_row", "with_replacement_row")
    }
    assert rows == {"uniform_row": 39, "with_replacement_row": 3}
    subnormal = [
        np.sum((goldens[f"{case}/probs"] > 0) & (goldens[f"{case}/probs"] < 1e-38))
        for case in CASES
    ]
    assert sum(subnormal) > 0


@pytest.mark.parametrize("case", CASES)
def test_distance_weighted_probabilities_equal_float64(goldens, case, weigh):
    # Where the recorded float64 run underflowed too, the loop below is the check.
    defined = ~goldens[f"{case}/uniform_row_f64"]
    expected = goldens[f"{case}/probs_f64"]
    with jax.enable_x64(True):
        found = softmax(
            weigh_golden(weigh, goldens, case, "distance_weighted", jnp.float64)
        )
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[defined], expected[defined], rtol=0, atol=1e-11)
    x = goldens[f"{case}/embedding"].astype(np.float64)
    target = goldens[f"{case}/target"]
    loop = loop_probabilities(x, target, negative_sampling="distance_weighted")
    np.testing.assert_allclose(found, loop, rtol=0, atol=1e-11)


def test_distance_weighted_does_not_underflow_where_the_reference_does(goldens, weigh):
    probabilities = softmax(
        weigh_golden(weigh, goldens, "d2048_b24", "distance_weighted")
    )
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    # Nearly hardest-negative sampling: far from uniform over 21 others.
    assert np.median(probabilities.max(axis=1)) > 0.5


@pytest.mark.parametrize("negative_sampling", NEGATIVE_SAMPLINGS)
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_probabilities_equal_a_loop(negative_sampling, spread, unit_rows, weigh):
    x = unit_rows(15, 24, seed=5, spread=spread)
    ids = np.arange(15) // 3
    found = softmax(
        weigh(jnp.asarray(x), jnp.asarray(ids, jnp.int32), sampling=negative_sampling)
    )
    expected = loop_probabilities(
        x.astype(np.float64), ids, negative_sampling=negative_sampling
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=24 * 2e-7)


@pytest.mark.parametrize(
    "case", ["cut1_d128_b13", "cutfirst_d128_b16", "shuffled_d128_b18"]
)
def test_anchors_and_positives_equal_the_original(goldens, case, draw):
    pairs = draw(goldens[f"{case}/embedding"], goldens[f"{case}/target"])
    anchor, column = np.nonzero(np.asarray(pairs.mask))
    np.testing.assert_array_equal(anchor, goldens[f"{case}/anchor_idx"])
    positive = np.asarray(pairs.positive)[anchor, column]
    np.testing.assert_array_equal(positive, goldens[f"{case}/positive_idx"])
    negative = np.asarray(pairs.negative)[anchor, column]
    assert np.all(goldens[f"{case}/probs"][anchor, negative] > 0)


def test_draws_follow_the_probabilities(unit_rows, draw_many):
    x, ids = unit_rows(9, 16, seed=7, spread=0.8), np.arange(9) // 3
    expected = loop_probabilities(
        x.astype(np.float64), ids, negative_sampling="distance_weighted"
    )
    runs = 4000
    many = draw_many(
        jnp.asarray(x),
        jnp.asarray(ids, jnp.int32),
        runs=runs,
        group_size=9,
        max_positives=2,
        sampling="distance_weighted",
    )
    negative = np.asarray(many.negative)
    for anchor in range(9):
        p = expected[anchor]
        # Second draw without replacement: p_j given the first, summed over the first.
        second = [
            sum(p[i] * p[j] / (1 - p[i]) for i in range(9) if i != j) for j in range(9)
        ]
        for column, law in enumerate([p, np.asarray(second)]):
            counts = np.bincount(negative[:, anchor, column], minlength=9)
            possible = law > 0
            assert counts[~possible].sum() == 0
            mean = runs * law[possible]
            chi_square = np.sum((counts[possible] - mean) ** 2 / mean)
            # 5 degrees of freedom: exceeded with probability 1e-5.
            assert possible.sum() == 6 and chi_square < 30.9
    assert np.all(negative[..., 0] != negative[..., 1])


def test_the_two_negatives_may_be_equal_only_with_replacement(unit_rows, draw):
    # Anchor 0..2 have one other instance's sample; anchor 3 has no positive.
    x, ids = unit_rows(4, 16, seed=2), [0, 0, 0, 1]
    pairs = draw(x, ids)
    np.testing.assert_array_equal(pairs.mask, [[1, 1], [1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(pairs.negative[:3], 3)


def test_with_replacement_draws_are_independent_per_row(unit_rows, draw_many):
    # Row 0 has two candidates for three draws: every pattern of the two must occur.
    x, ids = unit_rows(6, 16, seed=3, spread=0.5), [0, 0, 0, 0, 1, 2]
    many = draw_many(
        jnp.asarray(x),
        jnp.asarray(ids, jnp.int32),
        runs=400,
        group_size=6,
        max_positives=3,
        sampling="reference",
    )
    assert set(map(tuple, np.asarray(many.negative)[:, 0].tolist())) == {
        (a, b, c) for a in (4, 5) for b in (4, 5) for c in (4, 5)
    }


def test_groups_see_only_themselves_and_cut_instances(unit_rows, draw):
    # Groups of four cut the instances of three: 0 0 0 1 | 1 1 2 2 | 2 3 3 3.
    x, ids = unit_rows(12, 16, seed=4), np.arange(12) // 3
    pairs = draw(x, ids, group_size=4)
    expected_mask = [[1, 1]] * 3 + [[0, 0]] + [[1, 0]] * 4 + [[0, 0]] + [[1, 1]] * 3
    np.testing.assert_array_equal(pairs.mask, expected_mask)
    anchor, column = np.nonzero(np.asarray(pairs.mask))
    positive = np.asarray(pairs.positive)[anchor, column]
    negative = np.asarray(pairs.negative)[anchor, column]
    np.testing.assert_array_equal(positive // 4, anchor // 4)
    np.testing.assert_array_equal(negative // 4, anchor // 4)
    np.testing.assert_array_equal(ids[positive], ids[anchor])
    assert np.all(positive != anchor) and np.all(ids[negative] != ids[anchor])


def test_a_batch_smaller_than_the_group_is_one_group(unit_rows, draw):
    x, ids = unit_rows(12, 16, seed=4), np.arange(12) // 3
    whole, small = draw(x, ids, group_size=12), draw(x, ids, group_size=64)
    jax.tree.map(np.testing.assert_array_equal, whole, small)


def test_positives_are_limited_to_the_first(unit_rows, draw):
    pairs = draw(unit_rows(8, 16, seed=1), [5, 5, 5, 5, 7, 7, 7, 7], max_positives=2)
    expected = [[1, 2], [0, 2], [0, 1], [0, 1], [5, 6], [4, 6], [4, 5], [4, 5]]
    np.testing.assert_array_equal(pairs.positive, expected)
    assert np.all(pairs.mask)
