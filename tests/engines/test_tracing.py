"""Programs within programs, constants, and several inputs and outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.engines import as_onnx, assert_same

pytest.importorskip("onnxruntime")
INPUTS = {
    "b": np.array([[1.0, -2.0]], np.float32),
    "a": np.array([[3.0, 4.0], [5.0, 6.0]], np.float32),
}


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda primals, tangents: (doubled(primals[0]), tangents[0]))


def test_programs_within_a_program_are_computed():
    @jax.jit
    def inner(x, y):
        return doubled(jnp.where(x > 3, x, y))

    def function(inputs):
        a, b = inputs["a"], inputs["b"]
        return {"z": inner(a, a) @ jnp.ones((2, 1)), "first": inner(b, -b) + a[:1]}

    assert_same(function, INPUTS)


def test_an_input_may_be_an_output_and_be_left_out():
    assert_same(lambda inputs: {"same": inputs["a"]}, INPUTS)


def test_a_learned_exponent_is_a_constant():
    exponent = jnp.asarray(3.0)

    def function(inputs):
        return {"y": jnp.abs(inputs["a"]) ** (exponent * 2 - 1)}

    assert_same(function, INPUTS, rtol=1e-5)
    assert len(as_onnx(function, INPUTS)) < 1_000
