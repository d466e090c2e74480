"""The rows of the pages of searches and of groups, and the table of a search."""

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.pages.search_page import (
    MAX_PHOTOS_PER_GROUP,
    Found,
    group_rows,
    noted_group_rows,
)


def titles(row):
    return [item.title for item in (row.query, *row.neighbours)]


def test_what_was_found_is_rows_and_a_table():
    photos = {"a/b/q0.jpg": Image.new("RGB", (3, 2)), "c/x.jpg": None}
    found = Found(
        ["a/b/q0.jpg", "q1.jpg"],
        [[("a/c/x.jpg", 0.5), ("a/c/y.jpg", 0.25)], []],
        load_query=photos.get,
        load_found=lambda path: photos[path.removeprefix("a/")],
    )
    first, second = found
    assert titles(first) == ["b/q0.jpg", "c/x.jpg", "c/y.jpg"]
    assert titles(second) == ["q1.jpg"]
    assert [item.similarity for item in first.neighbours] == [0.5, 0.25]
    assert first.average_precision is None
    assert first.query.load() is photos["a/b/q0.jpg"]
    assert first.neighbours[0].load() is None
    assert list(found.table()) == [
        ("a/b/q0.jpg", 1, "a/c/x.jpg", 0.5),
        ("a/b/q0.jpg", 2, "a/c/y.jpg", 0.25),
    ]


def test_few_queries_are_told_with_their_best():
    found = [
        (f"{letter}.jpg", 1 - number / 8) for number, letter in enumerate("ab\udcffd")
    ]
    assert list(Found(["q.jpg", "r.jpg"], [found, []]).best()) == [
        "most similar to q.jpg:",
        "  1.000  a.jpg",
        "  0.875  b.jpg",
        "  0.750  \\udcff.jpg",
        "most similar to r.jpg:",
    ]
    assert not list(Found(["q.jpg"] * 4, [found] * 4).best())


def test_a_group_is_ordered_by_the_similarity_to_its_first_photo():
    descriptors = np.array([[1, 0], [0, 1], [0.5, 0.5], [1, 0.25]], np.float16)
    rows = group_rows(
        [np.array([0, 1, 2, 3])],
        read_descriptor=descriptors.__getitem__,
        paths={number: f"photos/{number}.jpg" for number in range(4)},
        load=lambda path: None,
    )
    (row,) = rows
    assert titles(row) == [f"photos/{number}.jpg" for number in (0, 3, 2, 1)]
    assert [item.similarity for item in row.neighbours] == pytest.approx([1, 0.5, 0])
    assert row.query.similarity is None
    assert (row.similarity, row.note) == (None, "Group 1: 4 photos")
    (row,) = group_rows(
        [np.arange(4)],
        read_descriptor=descriptors.__getitem__,
        paths={number: f"photos/{number}.jpg" for number in range(4)},
        load=lambda path: None,
        lowest=[0.25],
        notes={3: "the same"},
    )
    assert (row.similarity, row.note) == (
        0.25,
        "Group 1: 4 photos, any two at least 0.250 similar",
    )
    assert [item.note for item in row.neighbours] == ["the same", "", ""]
    assert [item.path for item in row.neighbours][:1] == ["photos/3.jpg"]


def test_of_a_large_group_the_first_photos_are_shown():
    numbers = np.arange(5, 5 + MAX_PHOTOS_PER_GROUP + 3)
    (row,) = group_rows(
        [numbers],
        read_descriptor=lambda number: np.array([1.0, number]),
        paths={int(number): f"{number}.jpg" for number in numbers},
        load=lambda path: None,
    )
    assert sorted(titles(row)) == sorted(
        f"{n}.jpg" for n in numbers[:MAX_PHOTOS_PER_GROUP]
    )
    assert row.note == "Group 1: 15 photos; shown are the first 12"


def test_a_group_without_descriptors_is_told_in_words():
    rows = noted_group_rows(
        [np.array([0, 2]), np.arange(MAX_PHOTOS_PER_GROUP + 3)],
        paths=[f"photos/{number}.jpg" for number in range(20)],
        load=lambda path: None,
        lowest=np.array([0.5, 0.25], np.float32),
        note=lambda first, row: f"{row} of {first}",
        about=lambda number: f"group {number}",
    )
    first, second = rows
    assert titles(first) == ["photos/0.jpg", "photos/2.jpg"]
    assert [item.note for item in first.neighbours] == ["2 of 0"]
    assert (first.similarity, first.note) == (0.5, "group 0")
    assert len(titles(second)) == MAX_PHOTOS_PER_GROUP
    assert second.note == f"group 1; shown are {MAX_PHOTOS_PER_GROUP}"
