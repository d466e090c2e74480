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


def test_what_is_known_may_be_a_loop_or_several_results():
    def function(inputs):
        known = jax.lax.fori_loop(0, 3, lambda _, x: x * 2, jnp.ones(2))
        first, second = jnp.split(jnp.arange(4.0), 2)
        same = jax.lax.optimization_barrier((first, second))
        return {"y": inputs["a"] * known[None] + (same[0] - second)[None]}

    assert_same(function, INPUTS)


def test_operands_of_a_barrier_stay_apart():
    def function(inputs):
        one, other = jax.lax.optimization_barrier((inputs["a"], inputs["b"]))
        return {"y": one - 2 * other}

    assert_same(function, INPUTS)


def test_maps_have_the_axes_of_jax_inside_and_out():
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert_same(lambda inputs: {"same": inputs["x"], "y": -inputs["x"]}, {"x": maps})
