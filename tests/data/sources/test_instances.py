"""Which photos are known to show the same thing."""

import numpy as np
import pytest
from helpers.photos import write_plain_photos
from helpers.sources import described, open_photos

from multigrain_jax.data.sources.instances import (
    is_instance_rule,
    name_instance,
    number_instances,
)
from multigrain_jax.data.sources.open import Subset

NAMES = ["a/x/1.jpg", "a/x/2.jpg", "a/y/1.jpg", "b/x/1.jpg", "b/3.jpg", "b/4.jpg"]


@pytest.mark.parametrize(
    ("rule", "right"),
    [("1", True), ("12", True), ("list", True)]
    + [(rule, False) for rule in ("0", "-1", "", "1.5", "\u0662", "class")],
)
def test_a_rule_is_a_level_or_the_list(rule, right):
    assert is_instance_rule(rule) == right


@pytest.mark.parametrize(
    ("rule", "path", "listed", "name"),
    [
        ("1", "ant/red/1.jpg", "", "ant"),
        ("2", "ant/red/1.jpg", "", "ant/red"),
        ("2", "ant/red/deep/1.jpg", "no", "ant/red"),
        ("3", "ant/red/1.jpg", "", None),
        ("1", "1.jpg", "", None),
        ("list", "ant/1.jpg", " the red one ", "the red one"),
        ("list", "ant/1.jpg", " ", None),
        (None, "ant/1.jpg", "no", None),
    ],
)
def test_a_folder_or_the_third_column_names_the_instance(rule, path, listed, name):
    assert name_instance(rule, path, listed=listed) == name


def test_the_unnamed_are_alone():
    numbers = number_instances(["b", None, "a", "b", None])
    assert numbers is not None and numbers.dtype == np.int32
    assert numbers.tolist() == [1, 2, 0, 1, 3]
    assert number_instances([None, None]) is None
    assert number_instances([]) is None


@pytest.fixture
def photos(tmp_path):
    return write_plain_photos(tmp_path / "photos", NAMES)


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("1", [{0, 1, 2}, {3, 4, 5}]),
        # The two folders x are of different things.
        ("2", [{0, 1}, {2}, {3}, {4}, {5}]),
    ],
)
def test_a_level_of_folders_groups_photos(photos, rule, groups):
    source = open_photos(photos, instances=rule)
    names = described(source, photos)
    found = [
        {NAMES.index(names[i]) for i in np.flatnonzero(source.instances == number)}
        for number in np.unique(source.instances)
    ]
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))
    assert open_photos(photos).instances is None


def test_a_part_of_the_photos_keeps_its_instances(photos):
    source = open_photos(photos, instances="1")
    assert Subset(source, [5, 0]).instances.tolist() == [1, 0]
    assert open_photos(photos, instances="1", num_images=2).instances.tolist() == [0, 1]
    renumbered = open_photos(photos, instances="1", class_names=["z", "b", "a"])
    np.testing.assert_array_equal(renumbered.instances, source.instances)
    held_out = open_photos(photos, "val", instances="1", val_fraction=0.4)
    assert held_out.instances.tolist() == [0, 1]


def test_the_third_column_of_a_list_names_instances(photos, tmp_path):
    lines = [
        "a/x/1.jpg\tant\tone",
        "b/x/1.jpg\tbee\t one ",
        "b/3.jpg\t\ttwo",
        "a/y/1.jpg\tant",
        "b/4.jpg",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = open_photos(photos, list_file=tmp_path / "list.txt", instances="list")
    assert source.instances.tolist() == [0, 0, 1, 2, 3]
    assert source.class_names == ["ant", "b", "bee"]
    assert source.labels.tolist() == [0, 2, 1, 0, 1]
    # Where nobody asks, the column is no part of the class.
    without = open_photos(photos, list_file=tmp_path / "list.txt")
    assert without.instances is None
    np.testing.assert_array_equal(without.labels, source.labels)
    by_folder = open_photos(photos, list_file=tmp_path / "list.txt", instances="1")
    assert by_folder.instances.tolist() == [0, 1, 1, 0, 1]
