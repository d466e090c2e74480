import jax
import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.opened_model import names_of_logits, open_model


def test_every_logit_has_a_name(tiny_checkpoint):
    opened = open_model(tiny_checkpoint)
    assert names_of_logits(opened) == opened.class_names
    fewer = names_of_logits(opened._replace(class_names=["ant"]))
    assert fewer == ["ant", "class 1, unnamed", "class 2, unnamed"]
    assert names_of_logits(opened._replace(class_names=[])) == []


def test_another_exponent_changes_the_pooling_alone(tiny_checkpoint):
    opened = open_model(tiny_checkpoint)
    other = open_model(tiny_checkpoint, pooling_exponent=4.5)
    assert other.pooling_exponent == float(other.variables.pooling_exponent) == 4.5
    assert opened.pooling_exponent != 4.5
    ours, theirs = jax.tree.leaves(other.variables), jax.tree.leaves(opened.variables)
    equal = [np.array_equal(one, two) for one, two in zip(ours, theirs, strict=True)]
    assert equal.count(False) == 1


@pytest.mark.parametrize("exponent", [0.0, -2.0, float("nan"), "p", True])
def test_what_is_no_exponent_is_refused(tiny_checkpoint, exponent):
    with pytest.raises(
        InputError, match=r"pooling_exponent: found .* a number above 0"
    ):
        open_model(tiny_checkpoint, pooling_exponent=exponent)
    largest = open_model(tiny_checkpoint, pooling_exponent="inf")
    assert largest.pooling_exponent == float("inf")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="checkpoint"):
        open_model(tmp_path / "none")
