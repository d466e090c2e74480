"""From a function of JAX to an ONNX model: its trace, equation by equation.

What does not depend on the inputs, weights above all, is computed on the way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from multigrain_jax.engines.equation import Equation, Unsupported
from multigrain_jax.engines.onnx_graph import Graph, Operand, Value
from multigrain_jax.engines.rules import RULES

# Equations that are whole programs: where the program is among their parameters.
NESTED = ("jaxpr", "call_jaxpr")
# Known operands of these are not spread out first.
LAZY = ("broadcast_in_dim",)


def to_onnx(
    function: Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
) -> bytes:
    """A function as an ONNX model that computes the same for inputs of these shapes.

    Args:
        function: of a dictionary of arrays, to one of other names; what it closes over
            is stored with the model.
        inputs: shapes and dtypes by name. Images are [B, H, W, C], as in JAX.

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
        outputs[name] = whole
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
        inner = next((equation.params[n] for n in NESTED if n in equation.params), None)
        if inner is not None:
            results = _evaluate(graph, inner.jaxpr, inner.consts, operands)
        else:
            results = [_result(graph, equation, operands)]
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in program.outvars]


def _result(graph: Graph, equation: Any, operands: Sequence[Operand]) -> Operand:
    name, (variable,) = equation.primitive.name, equation.outvars
    shapes = tuple(atom.aval.shape for atom in equation.invars)
    values = [operand for operand in operands if isinstance(operand, Value)]
    if not values and name not in LAZY:
        arrays = [
            graph.broadcast(operand, shape)
            for operand, shape in zip(operands, shapes, strict=True)
        ]
        return np.asarray(equation.primitive.bind(*arrays, **equation.params))
    if name not in RULES:
        raise Unsupported(f"the operation {name}")
    described = Equation(
        shapes, variable.aval.shape, np.dtype(variable.aval.dtype), equation.params
    )
    return RULES[name](graph, operands, described)
