"""Best classes, margins and entropies of logits, in the order of the source."""

import numpy as np
import pytest

from multigrain_jax.evaluation.embed import EmbeddedBatch
from multigrain_jax.evaluation.predictions import accuracies, collect_predictions


def batch(indices, logits, bad):
    zeros = np.zeros((len(indices), 2), np.float32)
    labels = np.zeros(len(indices), np.int32)
    return EmbeddedBatch(
        np.array(indices, np.int32),
        zeros,
        zeros,
        np.array(logits, np.float32),
        labels,
        np.array(bad),
    )


def test_the_best_classes_are_in_the_order_of_the_source():
    batches = [
        batch([3, 0], [[1, 3, 2], [9, 9, 9]], [False, True]),
        batch([2, 1], [[0, 0, 0], [500, -500, 0]], [False, False]),
    ]
    found = collect_predictions(batches, num_best=2)
    assert found.indices.tolist() == [1, 2, 3]
    assert found.num_unreadable == 1
    # Of equal ones the first class.
    assert found.classes.tolist() == [[0, 2], [0, 1], [1, 2]]
    total = np.exp([1, 3, 2]).sum()
    third = [[1, 0], [1 / 3, 1 / 3], [np.exp(3) / total, np.exp(2) / total]]
    np.testing.assert_allclose(found.probabilities, third, rtol=1e-6, atol=1e-30)
    margins = [1, 0, (np.exp(3) - np.exp(2)) / total]
    np.testing.assert_allclose(found.margins, margins, rtol=1e-6)
    p = np.exp([1, 3, 2]) / total
    entropies = [0, np.log(3), -np.sum(p * np.log(p))]
    np.testing.assert_allclose(found.entropies, entropies, rtol=1e-6, atol=1e-30)


def test_one_class_is_certain():
    found = collect_predictions([batch([0], [[-3]], [False])], num_best=1)
    assert found.classes.tolist() == [[0]] and found.probabilities.tolist() == [[1]]
    assert (found.margins.tolist(), found.entropies.tolist()) == ([1], [0])
    assert accuracies(found, np.array([0])) == {"accuracy": 1.0}


def test_accuracy_is_of_photos_whose_folder_is_a_class():
    logits = [[3, 2, 1], [3, 1, 2], [1, 2, 3], [1, 2, 3]]
    found = collect_predictions([batch(range(4), logits, [False] * 4)], num_best=2)
    labels = np.array([0, 2, 0, -1])
    assert accuracies(found, labels) == pytest.approx(
        {"accuracy": 1 / 3, "accuracy_of_best_2": 2 / 3}
    )
    assert accuracies(found, np.full(4, -1)) == {}
