"""The size that a checkpoint's record names, whatever the record looks like."""

import pytest

from multigrain_jax.checkpoint.made_for import (
    SMALLEST_SIZE,
    for_classes,
    for_search,
    made_for,
    recorded,
)
from multigrain_jax.tasks.bounds import SMALLEST_IMAGE
from multigrain_jax.weights.table import PUBLISHED

TRAINED = {"config": {"test_size": 96, "test_mode": "rect"}}
RELEASED = {"published": PUBLISHED["joint_3B_0.5"].record("joint_3B_0.5")}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (TRAINED, (96, "rect", None)),
        ({"config": {"test_size": 64}}, (64, "square", None)),
        (RELEASED, (500, "rect", 4.0)),
        # What was trained from published weights is what it was trained for.
        (RELEASED | TRAINED, (96, "rect", None)),
        ({"config": None}, (331, "square", None)),
        ({"config": {"test_size": (96, 128)}}, (331, "square", None)),
        ({"config": {"test_size": True}}, (331, "square", None)),
        ({"config": "text", "published": []}, (331, "square", None)),
        ({"published": {"search": {"test_size": "500"}}}, (331, "square", None)),
        ({"published": {"search": {"test_size": 500}}}, (331, "square", None)),
        ({"config": {"test_size": 64, "test_mode": "round"}}, (64, "square", None)),
        ({}, (331, "square", None)),
    ],
)
def test_the_size_is_that_of_the_record(meta, expected):
    assert made_for(meta, default_size=331)[:3] == expected


def test_where_it_is_known_from_is_told():
    origins = {made_for(meta, default_size=1).origin for meta in (TRAINED, RELEASED)}
    assert origins == {"as it was trained", "as it was published"}


def test_a_p_that_is_none_is_the_checkpoints():
    search = {"test_size": 500, "test_mode": "rect"}
    for value, expected in ((4, 4), ("4", None), (True, None), (-1.0, None)):
        found = recorded(
            {"published": {"search": search | {"pooling_exponent": value}}}
        )
        assert found == ((500,), "rect", expected, "it")


@pytest.mark.parametrize(
    ("meta", "search", "classes"),
    [
        # Collections are of whole photos, also where centres were scored.
        ({"config": {"test_size": 96}}, ((96,), "rect"), ((96,), "square")),
        ({"config": {"test_size": 31}}, ((500,), "rect"), ((331,), "square")),
        (
            {"config": {"test_size": (96, 128)}},
            ((96, 128), "rect"),
            ((331,), "square"),
        ),
        (RELEASED, ((500,), "rect", 4.0), ((500,), "rect", 4.0)),
        ({}, ((500,), "rect"), ((331,), "square")),
    ],
)
def test_a_network_is_asked_for_neighbours_and_for_classes(meta, search, classes):
    expected = (*search, None)[:3], (*classes, None)[:3]
    found = for_search(meta), for_classes(meta, default_size=331)
    assert tuple(each[:3] for each in found) == expected


def test_images_are_as_small_as_a_config_may_have_them():
    assert SMALLEST_SIZE == SMALLEST_IMAGE
