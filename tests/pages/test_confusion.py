"""Confusions are counted exactly, and the page shows them as counted."""

import re

import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.pages.confusion import (
    MAX_CONFUSED_PAIRS,
    MAX_CONFUSION_CLASSES,
    Confusions,
    confused_pairs_section,
    confusion_section,
    count_confusions,
)


def confusions_of(counts):
    """Those of a matrix [C, C] of counts, rows the true classes."""
    counts = np.array(counts)
    labels, predictions = np.nonzero(counts)
    return Confusions(labels, predictions, counts[labels, predictions], len(counts))


def texts(body):
    return [text.strip() for text in re.split(r"<[^>]*>", body) if text.strip()]


def values(name, body):
    return re.findall(rf'{name}="([^"]*)"', body)


def names(num_classes):
    return [f"class {number}" for number in range(num_classes)]


def test_confusions_are_counted_as_by_a_plain_loop():
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 5, (2, 200)).astype(np.int32)
    expected = np.zeros((6, 6), int)
    for label, prediction in zip(labels, predictions, strict=True):
        expected[label, prediction] += 1
    found = count_confusions(labels, predictions, num_classes=6)
    for part, wanted in zip(found, confusions_of(expected), strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_pairs_of_more_classes_than_32_bits_can_number_are_told_apart():
    last = np.full(3, 99_999, np.int32)
    found = count_confusions(last, last - [0, 1, 1], num_classes=100_000)
    assert [part.tolist() for part in found[:3]] == [
        *([99_999, 99_999], [99_998, 99_999], [2, 1])
    ]


def test_the_confusion_matrix_shows_its_counts():
    confusions = confusions_of([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    body = confusion_section(confusions, ["ant", "bee", "cat"]).body
    assert texts(body) == [
        *("ant", "bee", "cat"),
        *("ant", "3", "1"),
        *("bee", "2"),
        "cat",
    ]
    assert values("title", body) == [
        "3 of 4 ant: ant",
        "1 of 4 ant: bee",
        "2 of 2 bee: bee",
    ]
    assert values("class", body).count("diagonal") == 2
    shares = [float(style.split(":")[1]) for style in values("style", body)]
    assert shares[1] < shares[0] < shares[2]


def test_of_many_classes_those_with_most_mistakes_are_shown():
    num_classes = MAX_CONFUSION_CLASSES + 10
    counts = np.diag(np.full(num_classes, 9))
    counts[2, 45] = 5
    counts[3, 44] = 1  # as few mistakes as classes that come before
    counts[:40, 46] = 1
    section = confusion_section(confusions_of(counts), names(num_classes))
    found = texts(section.body)
    assert found[:3] == ["class 0", "class 1", "class 2"]
    assert found.count("class 45") == found.count("class 46") == 2
    assert "class 44" not in found
    # Those that are not shown count in the totals.
    assert "1 of 11 class 3: class 46" in values("title", section.body)
    assert f"The {MAX_CONFUSION_CLASSES} of {num_classes} classes" in section.note


def test_the_most_frequent_mistakes_come_first():
    counts = np.diag([9, 0, 0, 0])
    counts[0, 2] = counts[2, 0] = counts[1, 3] = 2
    counts[3, 1] = 3
    section = confused_pairs_section(confusions_of(counts), ["ant", "bee", "cat", "<"])
    assert texts(section.body) == [
        *("True class", "Predicted class", "Images"),
        *("&lt;", "bee", "3 of 3"),
        # Of equally many, more of their class first, and then in the classes' order.
        *("bee", "&lt;", "2 of 2"),
        *("cat", "ant", "2 of 2"),
        *("ant", "cat", "2 of 11"),
    ]
    assert values("style", section.body)[2:] == ["width:100.00%", "width:18.18%"]
    assert section.note.endswith("The 4 most frequent of 4 such pairs.")


def test_of_many_mistakes_the_most_frequent_are_shown():
    num_classes = MAX_CONFUSED_PAIRS + 10
    counts = np.diag(np.arange(num_classes), k=1)
    section = confused_pairs_section(confusions_of(counts), names(num_classes + 1))
    assert section.body.count(" of ") == MAX_CONFUSED_PAIRS
    assert ">1 of 1<" not in section.body
    total = num_classes - 1
    assert f"The {MAX_CONFUSED_PAIRS} most frequent of {total} such" in section.note


def test_without_mistakes_no_pair_is_listed():
    section = confused_pairs_section(confusions_of(np.eye(3, dtype=int)), names(3))
    assert texts(section.body) == ["No image was predicted as another class."]


@pytest.mark.parametrize("section", [confusion_section, confused_pairs_section])
def test_confusions_of_another_number_of_classes_are_refused(section):
    with pytest.raises(InputError, match="found 2 classes, expected 3 for 3 class"):
        section(confusions_of(np.eye(2, dtype=int)), ["a", "b", "c"])
