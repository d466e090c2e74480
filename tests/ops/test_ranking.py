"""Scores against recorded values and the plainest loops."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.ops.ranking import (
    average_precision,
    mean_average_precision,
    rank_positives,
    recall_at_k,
    top_k_correct,
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
