"""The page of a training: what is shown of photos without labels, of many classes."""

import re

import numpy as np
import pytest
from helpers.memory import peak_bytes

from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.pages.training_page import (
    MAX_MATRIX_CLASSES,
    gallery_rows,
    write_final_page,
)


class Nameless:
    """Two classes; the photos are not read."""

    class_names = ("kiwi", "plum")

    def describe(self, index):
        return f"/photos/{index}.jpg"


def embedded(degrees, labels, predictions):
    angles = np.deg2rad(degrees)
    return Embedded(
        np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        np.eye(6, dtype=np.float32)[predictions],
        np.array(labels, np.int32),
        np.zeros(len(labels), bool),
    )


# Five photos, and six without a label: one nearer to each than any other, and one.
MIXED = embedded(
    [0, 10, 22, 36, 52, 1, 11, 23, 37, 53, 53.1],
    [0, 1, 0, 1, 1, -1, -1, -1, -1, -1, -1],
    [0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0],
)


def test_nobody_knows_whether_a_photo_without_a_label_is_right():
    rows = gallery_rows(Nameless(), MIXED)
    verdicts = [[item.verdict for item in row.neighbours] for row in rows]
    titles = [[item.title for item in row.neighbours] for row in rows]
    assert verdicts[0] == ["found", "wrong", "found", "right", "found"]
    assert titles[0] == ["no label", "plum", "no label", "kiwi", "no label"]
    assert set(verdicts[-1]) == {"found"}


def test_the_worst_photos_come_first_and_have_their_file_names(tmp_path):
    source = Unreadable(9, 3)
    labels = source.labels
    angles = np.deg2rad(np.where(labels < 2, 90 * labels, 30 * np.arange(9)))
    descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    photos = Embedded(
        descriptors.astype(np.float32), np.eye(3)[labels], labels, np.zeros(9, bool)
    )
    scores = {"top1": 0.5, "leaks": 0.5, "copy_threshold_at_p90": 0.9, "ema_top1": 0.1}
    page = write_final_page(
        tmp_path, source, photos, split="val", scores=scores
    ).read_text()
    right = [int(n) for n in re.findall(r">(\d) of 5 are of “class \d” too<", page)]
    assert right == sorted(right) and len(set(right)) > 1 and len(right) == 9
    assert '<span class="title">class 1</span><span class="name">4.jpg</span>' in page
    # Of the four, two are scores.
    assert page.count('<div class="track">') == 2
    assert 'Right class <code class="identifier">top1</code>' in page


class Unreadable:
    """Photos of so many classes; when the page wants to show them, they are gone."""

    decoding = PLAIN

    def __init__(self, num_photos, num_classes):
        self.labels = np.arange(num_photos, dtype=np.int32) % num_classes
        self.class_names = [f"class {number}" for number in range(num_classes)]

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        raise OSError(f"photo {index} is gone")

    def describe(self, index):
        return f"/photos/{index}.jpg"


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
