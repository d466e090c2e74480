"""Scores against recorded values and the plainest loops."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.ops.ranking import (
    MAX_COUNTED,
    average_precision,
    label_ranks,
    map_at_r,
    mean_average_precision,
    micro_average_precision,
    precision_at_k,
    r_precision,
    rank_positives,
    ranks_in_row,
    recall_at_k,
    recall_at_precision,
    recall_at_rank,
    threshold_at_precision,
    top_k_correct,
    ukbench_score,
)


@pytest.fixture(scope="module")
def goldens(golden_dir):
    return json.loads((golden_dir / "functional" / "discrete.json").read_text())


def test_average_precision_equals_the_original(goldens):
    assert len(goldens["score_ap"]) >= 10
    for case in goldens["score_ap"]:
        found = average_precision(case["ranks"], case["nres"])
        assert found == pytest.approx(case["ap"], abs=1e-12)


def test_average_precision_does_not_depend_on_the_order_of_ranks():
    assert average_precision([7, 0, 3], 3) == average_precision([0, 3, 7], 3)


@pytest.mark.parametrize(
    ("ranks", "among_r", "at_r"),
    [
        ([0, 1, 2, 3], 1.0, 1.0),
        ([4, 5, 6, 7], 0.0, 0.0),
        # Right, wrong, right, wrong, and two right ones behind the four first.
        ([2, 0, 9, 4], 2 / 4, (1 + 2 / 3) / 4),
        ([3], 1 / 4, (1 / 4) / 4),  # three were not found
        ([], 0.0, 0.0),
    ],
)
def test_scores_of_the_r_first_of_four(ranks, among_r, at_r):
    found = np.array(ranks, np.int64)
    assert r_precision(found, 4) == pytest.approx(among_r, abs=1e-12)
    assert map_at_r(found, 4) == pytest.approx(at_r, abs=1e-12)


def test_top_k_equals_the_original(goldens):
    assert len(goldens["accuracy"]) == 2
    for case in goldens["accuracy"]:
        logits = jnp.asarray(case["logits"])
        for k, accuracy in zip(case["topk"], case["accuracy"], strict=True):
            correct = top_k_correct(logits, jnp.asarray(case["target"]), k)
            assert correct.shape == (len(case["target"]),)
            assert 100 * float(correct.mean()) == pytest.approx(accuracy, abs=1e-4)


def test_top_k_breaks_ties_by_index():
    logits = jnp.asarray([[1.0, 2.0, 2.0, 0.0]] * 4)
    correct = top_k_correct(logits, jnp.arange(4), 2)
    np.testing.assert_array_equal(correct, [False, True, True, False])
    np.testing.assert_array_equal(
        top_k_correct(logits, jnp.arange(4), 1), [False, True, False, False]
    )


@pytest.mark.parametrize("special", [-0.0, -np.inf, np.inf, np.nan])
def test_label_ranks_are_places_in_a_stable_order(special):
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 4, (200, 9)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.3] = special
    labels = rng.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = np.argmax(order == labels[:, None], axis=1)
    np.testing.assert_array_equal(label_ranks(logits, labels), expected)


@pytest.fixture
def scores():
    """Similarities of few values, so that there are ties, and two disjoint masks."""
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 5, (6, 12)).astype(np.float32)
    kind = rng.integers(0, 4, (6, 12))
    relevant, ignored = kind == 0, kind == 1
    relevant[2] = False
    return similarity, relevant, ignored


def loop_ranks(similarity, relevant, ignored):
    """For each relevant item, count what comes before it."""
    result = []
    for query in range(similarity.shape[0]):
        ranks = []
        for item in range(similarity.shape[1]):
            if not relevant[query, item] or ignored[query, item]:
                continue
            rank = 0
            for rival in range(similarity.shape[1]):
                mine, its = similarity[query, item], similarity[query, rival]
                before = its > mine or (its == mine and rival < item)
                rank += before and not ignored[query, rival]
            ranks.append(rank)
        result.append(sorted(ranks))
    return result


def test_ranks_equal_a_loop(scores):
    similarity, relevant, ignored = scores
    found = rank_positives(similarity, relevant, ignored=ignored)
    assert [list(r) for r in found] == loop_ranks(similarity, relevant, ignored)
    nothing = np.zeros_like(ignored)
    found = rank_positives(similarity, relevant)
    assert [list(r) for r in found] == loop_ranks(similarity, relevant, nothing)


@pytest.mark.parametrize("num_relevant", [0, 1, MAX_COUNTED, MAX_COUNTED + 1])
@pytest.mark.parametrize("special", [-0.0, -np.inf, np.inf, np.nan])
def test_ranks_are_places_in_a_stable_order(num_relevant, special):
    rng = np.random.default_rng(num_relevant)
    similarity = rng.integers(-5, 6, (8, 600)).astype(np.float32)
    similarity[rng.random(similarity.shape) < 0.2] = special
    relevant = np.zeros(similarity.shape, bool)
    relevant[:, rng.choice(600, num_relevant, replace=False)] = True
    ignored = rng.random(similarity.shape) < 0.1
    found = rank_positives(similarity, relevant, ignored=ignored)
    for row, ranks in enumerate(found):
        order = np.argsort(-similarity[row], kind="stable")
        order = order[~ignored[row, order]]
        np.testing.assert_array_equal(ranks, np.flatnonzero(relevant[row, order]))


def test_an_ignored_item_is_not_relevant():
    found = rank_positives(
        np.array([[3.0, 2.0, 1.0]]),
        np.array([[True, False, True]]),
        ignored=np.array([[True, False, False]]),
    )
    np.testing.assert_array_equal(found[0], [1])


def test_mean_scores_equal_a_loop_and_leave_out_empty_queries(scores):
    similarity, relevant, ignored = scores
    ranks = [r for r in loop_ranks(similarity, relevant, ignored) if r]
    assert len(ranks) < len(similarity)
    precisions = []
    for query in ranks:
        total = 0.0
        for found, rank in enumerate(query):
            before = 1.0 if rank == 0 else found / rank
            total += (before + (found + 1) / (rank + 1)) / 2
        precisions.append(total / len(query))
    found = mean_average_precision(similarity, relevant, ignored=ignored)
    assert found == pytest.approx(sum(precisions) / len(precisions), abs=1e-12)
    for k in (1, 3):
        hits = sum(query[0] < k for query in ranks)
        found = recall_at_k(similarity, relevant, k=k, ignored=ignored)
        assert found == pytest.approx(hits / len(ranks), abs=1e-12)


def test_no_query_with_positives_scores_zero():
    similarity, nothing = np.zeros((2, 3)), np.zeros((2, 3), bool)
    assert mean_average_precision(similarity, nothing) == 0
    assert recall_at_k(similarity, nothing, k=1) == 0


def test_ranks_in_a_row_equal_a_loop(scores):
    similarity, relevant, ignored = scores
    ignored = ignored | (np.random.default_rng(1).random(ignored.shape) < 0.2)
    assert np.any(relevant & ignored)
    expected = loop_ranks(similarity, relevant, ignored)
    for row, ranks in enumerate(expected):
        positives, junk = np.flatnonzero(relevant[row]), np.flatnonzero(ignored[row])
        # The order of the lists does not matter.
        found = ranks_in_row(similarity[row], positives[::-1], junk[::-1])
        assert list(found) == ranks


def test_what_is_at_minus_infinity_is_not_found():
    similarity = np.array([2.0, -np.inf, 1.0, -np.inf, 3.0], np.float32)
    nothing = np.empty(0, np.int64)
    assert list(ranks_in_row(similarity, np.array([1, 2]), nothing)) == [2]
    assert list(ranks_in_row(similarity, np.array([1, 2]), np.array([4]))) == [1]
    assert list(ranks_in_row(similarity, np.array([1, 3]), nothing)) == []


def test_precision_at_k_by_hand():
    ranks = np.array([0, 2, 3])
    found = [precision_at_k(ranks, k) for k in (1, 2, 3, 4, 10)]
    # The last positive is fourth: no further images are looked at.
    assert found == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 4])
    assert precision_at_k(np.array([7]), 5) == 0
    assert precision_at_k(np.empty(0, np.int64), 5) == 0


def test_ukbench_score_counts_the_first_four():
    assert ukbench_score(np.array([0, 1, 2, 3])) == 4
    assert ukbench_score(np.array([0, 3, 4, 90])) == 2
    assert ukbench_score(np.array([4, 5])) == 0


def test_micro_scores_by_hand():
    scores = np.array([0.2, 0.9, 0.5, 0.8, 0.5], np.float32)
    correct = np.array([True, True, True, False, False])
    # In order: right, wrong, wrong (a tie), right, right; one positive is missing.
    found = micro_average_precision(scores, correct, num_positives=4)
    assert found == pytest.approx((1 + 2 / 4 + 3 / 5) / 4)
    for precision, recall in ((1.0, 1 / 4), (0.6, 3 / 4), (0.61, 1 / 4), (0.5, 3 / 4)):
        found = recall_at_precision(
            scores, correct, num_positives=4, precision=precision
        )
        assert found == recall
    best = recall_at_precision(scores, ~correct, num_positives=2, precision=0.9)
    assert best == 0


def test_micro_scores_equal_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 6, 30).astype(np.float32)
        correct = rng.random(30) < rng.choice([0.1, 0.5, 0.95])
        order = sorted(range(30), key=lambda i: (-scores[i], correct[i]))
        total, hits, precision, recall = int(correct.sum()) + 2, 0, 0.0, 0.0
        for rank, candidate in enumerate(order):
            if correct[candidate]:
                hits += 1
                precision += hits / (rank + 1)
            if hits / (rank + 1) >= 0.9:
                recall = hits / total
        found = micro_average_precision(scores, correct, num_positives=total)
        assert found == pytest.approx(precision / total, abs=1e-12)
        found = recall_at_precision(scores, correct, num_positives=total, precision=0.9)
        assert found == pytest.approx(recall, abs=1e-12)
        threshold = threshold_at_precision(scores, correct, precision=0.9)
        precise = [s for s in set(scores) if np.mean(correct[scores >= s]) >= 0.9]
        # Below the least right one, a wrong one alone may still leave 90 % right.
        precise = [s for s in precise if correct[scores == s].any()]
        assert threshold == min(precise, default=None)
        if threshold is not None:
            assert correct[scores >= threshold].sum() / total == found


def test_ninety_percent_is_reached_exactly():
    # 27 of 30: 0.9 · 30 is not 27 in every rounding.
    correct = np.arange(30) >= 3
    scores = np.where(correct, 2.0, 3.0)
    found = recall_at_precision(scores, correct, num_positives=27, precision=0.9)
    assert found == 1


@pytest.mark.parametrize("special", [-0.0, -np.inf, np.inf, np.nan])
def test_only_candidates_that_can_be_precise_are_ranked(special):
    rng = np.random.default_rng(0)
    for precision in (0.0, 1 / 3, 0.7, 0.9, 1.0):
        scores = rng.integers(-5, 6, 300).astype(np.float32)
        scores[rng.random(300) < 0.01] = special
        correct = rng.random(300) < 0.02
        scores[correct] += 4
        order = np.lexsort((correct, -scores))
        hits = np.cumsum(correct[order])
        good = (hits / np.arange(1, 301) >= precision) & correct[order]
        found = recall_at_precision(
            scores, correct, num_positives=10, precision=precision
        )
        assert found == max(hits[good], default=0) / 10
        threshold = threshold_at_precision(scores, correct, precision=precision)
        expected = scores[order[good]][-1:].tolist()
        np.testing.assert_array_equal([threshold] if expected else [], expected)
        assert (threshold is None) == (not expected)


def test_a_threshold_takes_all_equals():
    # The first two of the four wrong ones would leave 20 of 22 right, all 20 of 24.
    scores = np.array([2.0] * 20 + [1.0] * 4, np.float32)
    correct = scores > 1
    assert threshold_at_precision(scores, correct, precision=0.9) == 2
    assert threshold_at_precision(scores, ~correct, precision=0.9) is None
    assert threshold_at_precision(scores, correct, precision=0.8) == 2


def test_without_candidates_micro_scores_are_zero():
    nothing = (np.empty(0, np.float32), np.empty(0, bool))
    assert micro_average_precision(*nothing, num_positives=3) == 0
    assert recall_at_precision(*nothing, num_positives=3, precision=0.9) == 0
    assert threshold_at_precision(*nothing, precision=0.9) is None
    assert micro_average_precision(*nothing, num_positives=0) == 0


def test_recall_at_a_rank_by_hand():
    # Of query 7: a wrong one, then two equals, one of them right; of 2: right, wrong.
    queries = np.array([7, 2, 7, 2, 7])
    scores = np.float32([0.9, 0.6, 0.5, 0.2, 0.5])
    correct = np.array([False, True, True, False, False])
    for k, expected in ((1, 1 / 3), (2, 1 / 3), (3, 2 / 3), (10, 2 / 3)):
        found = recall_at_rank(scores, correct, queries, num_positives=3, k=k)
        assert found == expected
    nothing = scores[:0], correct[:0], queries[:0]
    assert recall_at_rank(*nothing, num_positives=3, k=1) == 0
    assert recall_at_rank(*nothing, num_positives=0, k=1) == 0


@pytest.mark.parametrize("levels", [3, 1000])
def test_recall_at_a_rank_equals_a_loop_whatever_the_order(levels):
    rng = np.random.default_rng(levels)
    queries = rng.integers(0, 8, 100)
    scores = rng.integers(0, levels, 100).astype(np.float32)
    correct = rng.random(100) < 0.3
    total = int(correct.sum()) + 4
    for k in (1, 2, 10):
        hits = 0
        for item in np.flatnonzero(correct):
            others = (queries == queries[item]) & (scores >= scores[item])
            hits += np.count_nonzero(others) - 1 < k
        for order in (np.arange(100), rng.permutation(100)):
            arrays = scores[order], correct[order], queries[order]
            found = recall_at_rank(*arrays, num_positives=total, k=k)
            assert found == hits / total
