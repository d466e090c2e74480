"""From a function of JAX to an ONNX model: its trace, equation by equation.

What does not depend on the inputs, weights above all, is computed on the way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from multigrain_jax.engines.equation import Equation, Unsupported
from multigrain_jax.engines.onnx_graph import Graph, Operand, Value
from multigrain_jax.engines.rules import LAZY, RULES
from multigrain_jax.engines.windows import pad_in_windows, sums_of_windows

# Equations that are a whole program, computed once: where their parameters have it.
NESTED = {
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
}
# Of each operand they give the same.
SAME = ("copy", "optimization_barrier", "stop_gradient")


def to_onnx(
    function: Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
) -> bytes:
    """A function as an ONNX model that computes the same for inputs of these shapes.

    Args:
        function: of a dictionary of arrays, to one of other names; what it closes over
            is stored with the model.
        inputs: shapes and dtypes by name. Inputs and outputs have JAX's axes: images
            are [B, H, W, C].

    Returns:
        The model as ONNX files hold it.

    Raises:
        Unsupported: an operation that has no rule.
    """
    traced, out_shapes = jax.make_jaxpr(function, return_shape=True)(dict(inputs))
    names, out_names = sorted(inputs), sorted(out_shapes)
    graph = Graph()
    arguments = [
        graph.add_input(name, inputs[name].shape, np.dtype(inputs[name].dtype))
        for name in names
    ]
    results = _evaluate(graph, traced.jaxpr, traced.consts, arguments)
    outputs: dict[str, Value] = {}
    for name, result in zip(out_names, results, strict=True):
        whole = graph.broadcast(result, out_shapes[name].shape)
        if not isinstance(whole, Value):
            raise Unsupported(f"an output that no input decides: {name}")
        outputs[name] = graph.plain(whole)
    sums_of_windows(graph)
    pad_in_windows(graph)
    return graph.serialize(outputs)


def _evaluate(
    graph: Graph, program: Any, constants: Sequence[Any], arguments: Sequence[Operand]
) -> list[Operand]:
    """The results of a program of JAX, some computed now, others by the graph."""
    known: dict[Any, Operand] = {}

    def read(atom: Any) -> Operand:
        if hasattr(atom, "val"):  # a literal
            return np.asarray(atom.val, atom.aval.dtype)
        return known[atom]

    known |= zip(program.constvars, map(np.asarray, constants), strict=True)
    known |= zip(program.invars, arguments, strict=True)
    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in NESTED:
            inner = equation.params[NESTED[name]]
            results = _evaluate(graph, inner.jaxpr, inner.consts, operands)
        else:
            results = operands if name in SAME else _results(graph, equation, operands)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in program.outvars]


def _results(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    name = equation.primitive.name
    shapes = tuple(atom.aval.shape for atom in equation.invars)
    is_known = not any(isinstance(operand, Value) for operand in operands)
    if name not in LAZY or (is_known and name != "broadcast_in_dim"):
        operands = [
            graph.broadcast(operand, shape)
            for operand, shape in zip(operands, shapes, strict=True)
        ]
    if is_known and name != "broadcast_in_dim":
        found = equation.primitive.bind(*operands, **equation.params)
        several = equation.primitive.multiple_results
        return [np.asarray(each) for each in (found if several else [found])]
    if name not in RULES:
        raise Unsupported(f"the operation {name}")
    (variable,) = equation.outvars
    described = Equation(
        variable.aval.shape, np.dtype(variable.aval.dtype), equation.params
    )
    return [RULES[name](graph, operands, described)]
