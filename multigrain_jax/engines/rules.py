"""What each of JAX's operations is in ONNX: a table of rules, one for each primitive.

A rule takes the graph, the operands and the equation of the trace, and gives its value.
There are those that our networks make in evaluation; another one is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multigrain_jax.engines import shape_rules
from multigrain_jax.engines.equation import Equation, Rule, Unsupported
from multigrain_jax.engines.onnx_graph import (
    NO_ATTRIBUTES,
    Graph,
    Operand,
    Value,
    stored_axes,
    stored_axis,
)
from multigrain_jax.engines.windows import largest_of_windows

# Element by element, with operands that broadcast.
ELEMENTWISE = {
    "abs": "Abs",
    "add": "Add",
    "div": "Div",
    "eq": "Equal",
    "exp": "Exp",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "pow": "Pow",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
REDUCTIONS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}
# Of integers they would be bit by bit, which has other names in ONNX.
LOGICAL = {"and": "And", "not": "Not", "or": "Or"}


def _emit_elementwise(
    graph: Graph,
    operation: str,
    operands: Sequence[Operand],
    dtype: np.dtype,
    attributes: Mapping[str, Any] = NO_ATTRIBUTES,
) -> Value:
    # JAX's operands have one shape, or none at all.
    rank = max(len(operand.shape) for operand in operands)
    aligned = [
        operand if len(operand.shape) == rank else graph.reshape(operand, (1,) * rank)
        for operand in operands
    ]
    shape = np.broadcast_shapes(*(operand.shape for operand in aligned))
    names = [graph.name_of(operand) for operand in aligned]
    return graph.emit(operation, names, shape=shape, dtype=dtype, attributes=attributes)


def _elementwise(operation: str, attributes: Mapping[str, Any] = NO_ATTRIBUTES) -> Rule:
    def rule(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
        return _emit_elementwise(graph, operation, operands, equation.dtype, attributes)

    return rule


def _negated(operation: str) -> Rule:
    def rule(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
        found = _emit_elementwise(graph, operation, operands, equation.dtype)
        return _emit_elementwise(graph, "Not", [found], equation.dtype)

    return rule


def _logical(operation: str) -> Rule:
    def rule(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
        if equation.dtype != np.bool_:
            raise Unsupported(f"a bitwise {operation.lower()}")
        return _emit_elementwise(graph, operation, operands, equation.dtype)

    return rule


def _reduction(operation: str) -> Rule:
    def rule(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
        (value, *_), reduced = operands, equation.params["axes"]
        if not reduced:  # of which ONNX would make: all of them
            return value
        rank = len(value.shape)
        axes = [stored_axis(axis, rank) for axis in reduced]
        left = [axis for axis in stored_axes(rank) if axis not in reduced]
        shape = tuple(value.shape[axis] for axis in left)
        found = graph.emit(
            operation,
            [graph.name_of(value), graph.constant(np.array(sorted(axes), np.int64))],
            shape=shape,
            dtype=equation.dtype,
            attributes={"keepdims": 0},
        )
        order = np.argsort(left).tolist()
        if order != sorted(order):
            found = graph.emit(
                "Transpose",
                [found.name],
                shape=equation.shape,
                dtype=equation.dtype,
                attributes={"perm": order},
            )
        return graph.keep(found)

    return rule


def _max(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    for one, other in (operands, operands[::-1]):
        if isinstance(other, Value) or other.size > 1 or equation.dtype.kind != "f":
            continue
        if not other.any():
            # Engines fuse this with the convolution before it.
            return _emit_elementwise(graph, "Relu", [one], equation.dtype)
    return _emit_elementwise(graph, "Max", operands, equation.dtype)


def _rsqrt(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    root = _emit_elementwise(graph, "Sqrt", operands, equation.dtype)
    return _emit_elementwise(graph, "Reciprocal", [root], equation.dtype)


def _is_finite(
    graph: Graph, operands: Sequence[Operand], equation: Equation
) -> Operand:
    size = _emit_elementwise(graph, "Abs", operands, np.dtype(np.float32))
    limit = np.array(np.inf, np.float32)
    # False of a NaN too.
    return _emit_elementwise(graph, "Less", [size, limit], equation.dtype)


def _square(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    return _emit_elementwise(graph, "Mul", [operands[0]] * 2, equation.dtype)


def _integer_pow(
    graph: Graph, operands: Sequence[Operand], equation: Equation
) -> Operand:
    power = np.array(equation.params["y"], equation.dtype)
    return _emit_elementwise(graph, "Pow", [operands[0], power], equation.dtype)


def _convert(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(equation.dtype)
    return _emit_elementwise(graph, "Cast", operands, equation.dtype, {"to": kind})


def _select(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    which, no, *yes = operands
    if which.dtype != np.bool_ or len(yes) != 1:
        raise Unsupported("a choice that is not between two")
    largest = largest_of_windows(graph, which, no, yes[0])
    if largest is not None:
        return largest
    return _emit_elementwise(graph, "Where", [which, yes[0], no], equation.dtype)


def _matrix_product(
    graph: Graph, operands: Sequence[Operand], equation: Equation
) -> Operand:
    left, right = operands
    contracted, batched = equation.params["dimension_numbers"]
    expected = ((len(left.shape) - 1,), (0,))
    if (
        tuple(map(tuple, contracted)) != expected
        or any(batched)
        or len(right.shape) != 2
    ):
        raise Unsupported("a product of other arrays than [..., K] and [K, N]")
    names = [
        graph.plain(each).name if isinstance(each, Value) else graph.constant(each)
        for each in (left, right)
    ]
    found = graph.emit("MatMul", names, shape=equation.shape, dtype=equation.dtype)
    return graph.keep(found)


def _convolution(
    graph: Graph, operands: Sequence[Operand], equation: Equation
) -> Operand:
    params = equation.params
    values, kernel = operands
    numbers = tuple(params["dimension_numbers"])
    if (
        isinstance(kernel, Value)
        or numbers != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
        or tuple(params["lhs_dilation"]) != (1, 1)
        or params["batch_group_count"] != 1
    ):
        raise Unsupported("a convolution that is not of NHWC with a known HWIO kernel")
    padding = params["padding"]
    if min(min(sides) for sides in padding) < 0:
        raise Unsupported("a convolution with a negative padding")
    return graph.emit(
        "Conv",
        [graph.name_of(values), graph.constant(kernel.transpose(3, 2, 0, 1))],
        shape=equation.shape,
        dtype=equation.dtype,
        attributes={
            "kernel_shape": kernel.shape[:2],
            "strides": tuple(params["window_strides"]),
            "dilations": tuple(params["rhs_dilation"]),
            "group": params["feature_group_count"],
            "pads": [side[end] for end in range(2) for side in padding],
        },
    )


RULES: dict[str, Rule] = {
    **{name: _elementwise(operation) for name, operation in ELEMENTWISE.items()},
    **{name: _reduction(operation) for name, operation in REDUCTIONS.items()},
    **{name: _logical(operation) for name, operation in LOGICAL.items()},
    "broadcast_in_dim": shape_rules.broadcast,
    "concatenate": shape_rules.concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "dot_general": _matrix_product,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "max": _max,
    "ne": _negated("Equal"),
    "pad": shape_rules.pad,
    "rem": _elementwise("Mod", {"fmod": 1}),
    "reshape": shape_rules.reshape,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "slice": shape_rules.slice,
    "square": _square,
    "squeeze": shape_rules.reshape,
    "stack": shape_rules.stack,
    "transpose": shape_rules.transpose,
}
# Operands of these need not be spread out to their whole shape.
LAZY = frozenset(
    {*ELEMENTWISE, *LOGICAL, "broadcast_in_dim", "convert_element_type", "integer_pow"}
    | {"is_finite", "max", "ne", "rem", "rsqrt", "select_n", "square"}
)
