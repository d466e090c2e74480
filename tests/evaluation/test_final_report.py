"""The scores of labelled photos, among them some that nobody has labelled."""

import numpy as np
import pytest

from multigrain_jax.evaluation import classification
from multigrain_jax.evaluation.classification import knn_top1
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.evaluation.final_page import gallery_rows
from multigrain_jax.evaluation.final_report import class_map, classification_scores


def embedded(degrees, labels, predictions):
    angles = np.deg2rad(degrees)
    return Embedded(
        np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        np.eye(6, dtype=np.float32)[predictions],
        np.array(labels, np.int32),
        np.zeros(len(labels), bool),
    )


LABELLED = embedded([0, 10, 22, 36, 52], [0, 1, 0, 1, 1], [0, 1, 1, 0, 1])
# The same photos, with one nearer to each than any other, and two nearly the same.
MIXED = embedded(
    [0, 10, 22, 36, 52, 1, 11, 23, 37, 53, 53.1],
    [0, 1, 0, 1, 1, -1, -1, -1, -1, -1, -1],
    [0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0],
)


@pytest.mark.parametrize("score", [class_map, knn_top1, classification_scores])
def test_photos_without_a_label_change_no_score(score):
    assert score(MIXED) == score(LABELLED)


def test_scores_by_hand():
    assert classification_scores(LABELLED) == {"top1": 3 / 5, "top5": 1}
    # The nearest of 0 … 4 are 1, 0, 1, 2 and 3.
    assert knn_top1(LABELLED) == 1 / 5


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_change_no_nearest_photo(monkeypatch, block):
    monkeypatch.setattr(classification, "KNN_BLOCK", block)
    assert knn_top1(LABELLED) == 1 / 5


class Nameless:
    """Two classes; the photos are not read."""

    class_names = ("kiwi", "plum")


def test_nobody_knows_whether_a_photo_without_a_label_is_right():
    rows = gallery_rows(Nameless(), MIXED)
    verdicts = [[item.verdict for item in row.neighbours] for row in rows]
    titles = [[item.title for item in row.neighbours] for row in rows]
    assert verdicts[0] == ["found", "wrong", "found", "right", "found"]
    assert titles[0] == ["no label", "plum", "no label", "kiwi", "no label"]
    assert set(verdicts[-1]) == {"found"}
