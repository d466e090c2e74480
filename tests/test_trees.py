"""Trees of arrays as nested dictionaries: names, checks and digests."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.trees import (
    flatten_nested,
    json_digest,
    leaf_digests,
    nest_flat,
    nested_to_tree,
    tree_to_nested,
)


class Pair(NamedTuple):
    first: object
    second: object


def test_a_tree_comes_back_by_the_names_of_its_leaves():
    tree = {"a": Pair(np.arange(3), (jnp.ones(2), jnp.float32(4)))}
    nested = tree_to_nested(tree)
    assert nested.keys() == {"a"}
    assert nested["a"].keys() == {"first", "second"}
    assert nested["a"]["second"].keys() == {"0", "1"}
    back = nested_to_tree(nested, like=tree, name="tree")
    assert isinstance(back["a"], Pair) and isinstance(back["a"].second, tuple)
    np.testing.assert_array_equal(back["a"].second[0], np.ones(2))


def test_what_is_donated_later_is_copied():
    on_device = jnp.arange(3.0)
    host = np.arange(3)
    nested = tree_to_nested({"device": on_device, "host": host})
    on_device.delete()
    np.testing.assert_array_equal(nested["device"], [0, 1, 2])
    assert nested["host"] is host


def test_other_structure_is_listed_whole():
    nested = {"a": np.zeros(3), "b": {"c": np.zeros(2, np.float32)}}
    like = {"a": np.zeros(4), "b": {"d": np.zeros(2, np.float32)}}
    with pytest.raises(InputError) as error:
        nested_to_tree(nested, like=like, name="model")
    for line in ("missing: b.d", "not expected: b.c", "a: found float64[3]"):
        assert line in str(error.value)


def test_flattening_and_nesting_are_inverse():
    nested = {"a": {"b": np.zeros(1), "c": {"d": np.ones(2)}}, "e": np.arange(3)}
    flat = flatten_nested(nested)
    assert list(flat) == ["a.b", "a.c.d", "e"]
    again = nest_flat(flat)
    assert again.keys() == nested.keys() and again["a"].keys() == nested["a"].keys()
    assert again["a"]["c"]["d"] is nested["a"]["c"]["d"]
    assert list(flatten_nested({"b": np.zeros(1)}, "a.")) == ["a.b"]


def test_a_digest_tells_values_shape_and_dtype():
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros + 1, zeros.reshape(3, 2), zeros.astype(np.int32), -zeros]
    digests = {leaf_digests({"a": leaf})["a"] for leaf in (zeros, *others)}
    assert len(digests) == 5
    # The order in memory is none of its business.
    assert leaf_digests({"a": np.asfortranarray(zeros)}) == leaf_digests({"a": zeros})


def test_the_digest_of_json_does_not_depend_on_the_order_of_keys():
    value = {"a": [1, {"b": 2, "c": None}], "d": "e"}
    turned = {"d": "e", "a": [1, {"c": None, "b": 2}]}
    assert json_digest(value) == json_digest(turned)
    assert json_digest(value) != json_digest({**value, "d": "f"})
