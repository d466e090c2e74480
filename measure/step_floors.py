"""What a training step costs at least: its work counted, the device's rates measured.

Part of measure/step.py, whose header says what is counted.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params
from jax.typing import DTypeLike

from multigrain_jax.models.multigrain import Variables, merge_model


class Work(NamedTuple):
    """What one image, and the parameters, cost at least."""

    flops: float  # per image, forward and backward
    forward_flops: float
    map_values: int  # per image, values that leave a convolution
    parameters: int


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All operations of a program, those inside others too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def shape_of(value: Var | Literal) -> tuple[int, ...]:
    """The shape of an operation's operand or result."""
    assert isinstance(value.aval, ShapedArray)
    return value.aval.shape


def count_work(graphdef: nnx.GraphDef, variables: Variables, size: int) -> Work:
    """Counted in the forward program of one image."""
    images = jnp.zeros((1, size, size, 3), jnp.float32)
    key = jax.random.key(0)
    program = jax.make_jaxpr(
        lambda v, x: merge_model(graphdef, v)(x, dropout_key=key).logits
    )(variables, images)
    forward, first, values = 0, 0, 0
    for equation in equations(program.jaxpr):
        if equation.primitive.name == "conv_general_dilated":
            kernel = shape_of(equation.invars[1])  # height, width, in, out
            outputs = math.prod(shape_of(equation.outvars[0]))
            per_output = math.prod(kernel[:3])
            first = first or 2 * outputs * per_output
            values += outputs
        elif equation.primitive.name == "dot_general":
            result = shape_of(equation.outvars[0])
            outputs = math.prod(result)
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = shape_of(equation.invars[0])
            per_output = math.prod(left[axis] for axis in contracted)
            # Convolutions of tiny maps are matrix products too.
            values += outputs if len(result) == 4 else 0
        else:
            continue
        forward += 2 * outputs * per_output
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
    return Work(3 * forward - first, forward, values, parameters)


def seconds_per_call(call: Callable[[], object], *, steps: int) -> float:
    """The best of three rounds of `steps` calls, each waited for at its end."""
    jax.block_until_ready(call())
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(steps):
            result = call()
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - started) / steps)
    return min(rounds)


def device_rates(dtype: DTypeLike) -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of a large copy."""
    on_cpu = jax.default_backend() == "cpu"
    side = 2048 if on_cpu else 8192
    # Not one value everywhere: chips clock higher on that.
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    multiply = jax.jit(lambda a, b: a @ b)
    flops = 2 * side**3 / seconds_per_call(lambda: multiply(matrix, matrix), steps=5)
    values = jnp.zeros((1 if on_cpu else 8) * 2**26, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    copied = 2 * values.nbytes / seconds_per_call(lambda: add(values), steps=5)
    return flops, copied
