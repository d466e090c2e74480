"""The scores of labelled photos, among them some that nobody has labelled."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.memory import peak_bytes

from multigrain_jax.errors import InputError
from multigrain_jax.evaluation import classification
from multigrain_jax.evaluation.classification import (
    alone_in_class,
    class_map,
    classification_scores,
    evaluate_classification,
    for_several,
    knn_top1,
    require_classes,
)
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.mesh import make_mesh
from multigrain_jax.ops.ranking import mean_average_precision


class OnDevice:
    """A number that a device is at work on until it is fetched."""

    def __init__(self, value, at_work):
        self.value, self.at_work = value, at_work
        at_work.append(self)

    def __array__(self, dtype=None, copy=None):
        self.at_work.remove(self)
        return np.array(self.value, dtype)


def test_few_batches_run_ahead_of_the_device():
    at_work, ahead, losses = [], [], [0.1, 0.7, 1e9, 0.3, 1e-9, 0.2]

    def step(variables, batch):
        loss = losses[len(ahead)]
        ahead.append(len(at_work))
        count, top1 = np.int32(2), np.array([1], np.int32)
        loss = OnDevice([loss], at_work)
        return {"count": count, "readable": count, "top1": top1, "cross_entropy": loss}

    batch = {"image": np.zeros((8, 2, 2, 3), np.uint8)}
    batches = [batch] * len(losses)
    (scores,) = evaluate_classification(step, None, batches, mesh=make_mesh())
    assert ahead == [0, 1, 2, 2, 2, 2]
    assert not at_work
    # Added up in the order of the batches: in another, the last bits differ.
    assert scores == {"top1": 0.5, "cross_entropy": np.cumsum(losses)[-1] / 12}


def test_several_sets_of_arrays_are_scored_on_the_same_batches():
    def step(right, batch):
        count = np.int32(4)
        losses = np.array([right, 2 * right], np.float32)
        return {"count": count, "readable": count, "top1": losses, "loss": losses + 1}

    batches = [{"image": np.zeros((8, 2, 2, 3), np.uint8)}] * 3
    mesh = make_mesh()
    each = [evaluate_classification(step, n, batches, mesh=mesh) for n in (1, 2)]
    both = evaluate_classification(for_several(step), [1, 2], iter(batches), mesh=mesh)
    assert both == each[0] + each[1]
    alone = evaluate_classification(for_several(step), [1], batches, mesh=mesh)
    assert alone == each[0] != each[1]


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


def test_a_photo_alone_in_its_class_finds_nothing_and_costs_nothing():
    labels = np.array([0, 1, 0, 1, 1, 5, -1], np.int32)
    assert alone_in_class(labels).tolist() == [False] * 5 + [True, False]
    assert not alone_in_class(np.array([-1, -1], np.int32)).any()
    # Turned away from all others, it is nobody's nearest either.
    photos = embedded([0, 10, 22, 36, 52, 200], labels[:6], [0, 1, 1, 0, 1, 0])
    assert knn_top1(photos) == knn_top1(LABELLED)
    assert class_map(photos) == class_map(LABELLED)


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_change_no_nearest_photo(monkeypatch, block):
    monkeypatch.setattr(classification, "KNN_BLOCK", block)
    assert knn_top1(LABELLED) == 1 / 5


def random_photos(rng, *, num_photos=97, num_classes=7):
    """Photos with unreadable ones, some without a label, and with many ties."""
    # Of multiples of 1/16, inner products are exact, in whatever order they are added.
    descriptors = (rng.integers(-4, 5, (num_photos, 8)) / 16).astype(np.float32)
    logits = rng.integers(-3, 4, (num_photos, num_classes)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = np.nan
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    labels = rng.integers(-1, num_classes, num_photos).astype(np.int32)
    bad = rng.random(num_photos) < 0.1
    descriptors[bad] = 0
    return Embedded(descriptors, logits, labels, bad)


def whole_class_map(photos):
    """`class_map` from all similarities at once."""
    labelled = photos.labels >= 0
    labels, descriptors = photos.labels[labelled], photos.descriptors[labelled]
    same = labels[:, None] == labels
    itself = np.eye(len(same), dtype=bool)
    similarity = descriptors @ descriptors.T
    return mean_average_precision(similarity, same & ~itself, ignored=itself)


def sorted_scores(photos):
    """`classification_scores` from all classes in order."""
    order = np.argsort(-photos.logits, axis=1, kind="stable")
    right = (order == photos.labels[:, None]) & ~photos.bad[:, None]
    right = right[photos.labels >= 0]
    return {f"top{k}": right[:, :k].any(axis=1).mean() for k in (1, 5)}


@pytest.mark.parametrize("block_bytes", [1, 4 * 97 * 10, 1 << 20])
def test_blocks_change_no_score(monkeypatch, block_bytes):
    monkeypatch.setattr(classification, "RANKED_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    for num_classes in (1, 3, 7, 30):
        photos = random_photos(rng, num_classes=num_classes)
        assert class_map(photos) == whole_class_map(photos)
        assert classification_scores(photos) == sorted_scores(photos)


def test_a_class_that_the_classifier_lacks_is_not_found():
    photos = LABELLED._replace(labels=np.array([0, 1, 6, 7, 1], np.int32))
    assert classification_scores(photos) == {"top1": 3 / 5, "top5": 3 / 5}


def test_all_similarities_are_never_there_at_once():
    rng = np.random.default_rng(0)
    photos = Embedded(
        rng.standard_normal((6000, 8)).astype(np.float32),
        np.empty((6000, 1), np.float32),
        np.arange(6000, dtype=np.int32) // 2,
        np.zeros(6000, bool),
    )
    # With the masks of all pairs, their similarities take 250 MB.
    assert peak_bytes(class_map, photos) < 2 * classification.RANKED_BYTES


def test_classes_are_never_put_in_order_at_once():
    # One row of logits, seen 4000 times.
    logits = np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    photos = Embedded(
        np.empty((4000, 1), np.float32),
        np.broadcast_to(logits, (4000, 8000)),
        np.arange(4000, dtype=np.int32),
        np.zeros(4000, bool),
    )
    assert peak_bytes(classification_scores, photos) < 2.5 * classification.RANKED_BYTES


def labelled(labels, *class_names):
    """A source of photos as far as its labels go."""

    class Source:
        def __len__(self):
            return len(labels)

    source = Source()
    source.labels, source.class_names = np.array(labels), class_names
    return source


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        (labelled([0, -1, -1], "a", "b"), ["a", "b"], "2 of 3 images have no label"),
        (
            labelled([0], "a", "b", "c"),
            ["a", "b"],
            "have 3 classes, .* has 2",
        ),
        # Without names, labels mean something only if none is missing.
        (labelled([0], "a"), [], "have 1 classes, .* has 2"),
        (labelled([0], "a"), ["a", "b"], None),
        (labelled([0], "a", "b"), [], None),
    ],
)
def test_a_set_is_to_have_the_models_classes(source, names, message):
    check = partial(
        require_classes, num_classes=2, class_names=names, checkpoint=Path("run")
    )
    if message is None:
        check(source)
    else:
        with pytest.raises(InputError, match=message):
            check(source)
