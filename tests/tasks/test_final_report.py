"""The scores of labelled photos, among them some that nobody has labelled."""

import tracemalloc

import numpy as np
import pytest

from multigrain_jax.evaluation import classification
from multigrain_jax.evaluation.classification import (
    class_map,
    classification_scores,
    knn_top1,
)
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.ops.ranking import mean_average_precision
from multigrain_jax.pages.training_page import (
    MAX_MATRIX_CLASSES,
    gallery_rows,
    write_final_page,
)


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


def peak_bytes(function, *args, **kwargs):
    """What a call takes at most, beside its arguments."""
    tracemalloc.start()
    try:
        function(*args, **kwargs)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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


class Unreadable:
    """Photos of so many classes; when the page wants to show them, they are gone."""

    apply_exif_orientation = False

    def __init__(self, num_photos, num_classes):
        self.labels = np.arange(num_photos, dtype=np.int32) % num_classes
        self.class_names = [f"class {number}" for number in range(num_classes)]

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        raise OSError(f"photo {index} is gone")


def predicted(source, shift):
    """What a model makes of them that takes each class for the one after `shift`."""
    num_classes = len(source.class_names)
    logits = np.zeros((len(source), num_classes), np.float32)
    logits[np.arange(len(source)), (source.labels + shift) % num_classes] = 1
    descriptors = np.ones((len(source), 2), np.float32)
    return Embedded(descriptors, logits, source.labels, np.zeros(len(source), bool))


@pytest.mark.parametrize("num_classes", [3, MAX_MATRIX_CLASSES, MAX_MATRIX_CLASSES + 1])
def test_the_page_of_many_classes_lists_pairs_instead_of_a_matrix(
    tmp_path, num_classes
):
    source = Unreadable(2 * num_classes, num_classes)
    path = write_final_page(
        tmp_path, source, predicted(source, 1), split="val", scores={"top1": 0.0}
    )
    page = path.read_text()
    matrix = num_classes <= MAX_MATRIX_CLASSES
    assert ('<table class="confusion">' in page) == matrix
    assert ("Most confused classes" in page) == (not matrix)
    assert ('title="2 of 2 class 0: class 1"' in page) == matrix
    listed = '<th scope="row">class 0</th><td>class 1</td><td class="value">2 of 2</td>'
    assert (listed in page) == (not matrix)


def test_no_matrix_of_all_classes_is_made(tmp_path):
    source = Unreadable(500, 5000)
    photos = predicted(source, 1)
    taken = peak_bytes(
        write_final_page, tmp_path, source, photos, split="val", scores={}
    )
    # 200 MB of counts; a copy of the logits would be 10 MB.
    assert taken < 8 << 20
