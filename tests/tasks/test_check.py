"""What is wrong with a configuration of an evaluation, in a line each."""

import pytest

from configs import eval_base
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.check import (
    as_tuple,
    choice_problems,
    data_problems,
    evaluation_problems,
    exponent_problems,
    minimum_problems,
    path_problems,
    pooling_exponents,
    refuse,
    size_problems,
)


def test_all_problems_are_one_error_and_none_is_none():
    refuse([])
    with pytest.raises(InputError, match="cannot work:\n  a: found 1\n  b: found 2"):
        refuse(["a: found 1", "b: found 2"])


def test_values_are_told_with_what_was_expected():
    config = {"kind": "round", "other": "square", "count": 0, "path": "", "file": "a"}
    kinds = ("square", "rect")
    assert choice_problems(config, {"kind": kinds, "other": kinds}) == [
        "kind: found 'round', expected one of square, rect"
    ]
    assert minimum_problems(config, {"count": 1}) == [
        "count: found 0, expected at least 1"
    ]
    assert minimum_problems(config, {"count": 0}) == []
    assert size_problems("size", (31, 32)) == [
        "size: found 31, expected at least 32 pixels"
    ]
    (line,) = path_problems(config, ("path", "file"))
    assert line.endswith("give it with --config.path=PATH")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        (
            {"source": "web"},
            "data.source: found 'web', expected one of folder, imagene",
        ),
        ({"root": None}, "give it with --config.data.root=DIR"),
        ({"source": "quickstart", "root": None}, None),
        ({"val_fraction": 1.0}, "data.val_fraction: found 1.0, expected from 0"),
        ({"val_fraction": 0.1}, None),
        ({"source": "tfds", "val_fraction": 0.1}, "'tfds', which has its own splits"),
    ],
)
def test_data_are_to_be_somewhere(changes, message):
    data = {"source": "folder", "root": "/photos", "val_fraction": 0.0} | changes
    found = data_problems(data)
    assert len(found) == (message is not None)
    assert all(message in line for line in found)


@pytest.mark.parametrize(
    ("value", "exponents", "num_problems"),
    [
        (None, (), 0),
        (3, (3.0,), 0),
        ("inf", (float("inf"),), 0),
        ([1.0, "2.5"], (1.0, 2.5), 0),
        ((2.0, -1.0, 0.0), (2.0, -1.0, 0.0), 2),
        (float("nan"), None, 1),
        ("many", None, 1),
        ({"p": 3}, None, 1),
    ],
)
def test_exponents_are_numbers_above_zero(value, exponents, num_problems):
    assert len(exponent_problems(value)) == num_problems
    if exponents is not None:
        assert pooling_exponents(value) == exponents


def test_one_value_is_a_tuple_of_one():
    assert as_tuple([1, 2]) == as_tuple((1, 2)) == (1, 2)
    assert as_tuple("ab") == ("ab",)
    assert as_tuple(None) == (None,)


def test_a_recipe_that_is_filled_in_has_no_problems():
    config = eval_base.get_config()
    lines = evaluation_problems(config.to_dict(), num_devices=8)
    assert [line.split(":")[0] for line in lines] == ["init_from", "data.root"]
    config.init_from, config.data.root = "run", "photos"
    assert evaluation_problems(config.to_dict(), num_devices=8) == []
    # Of several sizes each is looked at; the batch is to be shared evenly.
    changed = {**config.to_dict(), "test_size": (16, 224), "batch_size": 12}
    lines = evaluation_problems(changed, num_devices=8)
    assert lines[0].startswith("test_size: found 16")
    assert lines[1].startswith("batch_size = 12 does not divide over 8 devices")
