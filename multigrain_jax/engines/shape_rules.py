"""Rules for operations that move elements and compute none."""

from collections.abc import Sequence

import numpy as np

from multigrain_jax.engines.equation import Equation, Unsupported
from multigrain_jax.engines.onnx_graph import (
    Graph,
    Operand,
    Value,
    stored_axes,
    stored_axis,
)


def broadcast(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """New axes; those that become longer are spread out where something needs it."""
    (operand, *_), places = operands, equation.params["broadcast_dimensions"]
    shape = [1] * len(equation.shape)
    for axis, length in zip(places, operand.shape, strict=True):
        shape[axis] = length
    return graph.reshape(operand, shape)


def reshape(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """The same elements, in the same order."""
    return graph.reshape(operands[0], equation.shape)


def transpose(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """Axes in another order."""
    (operand,) = operands
    if not isinstance(operand, Value):
        return operand.transpose(equation.params["permutation"])
    found = graph.emit(
        "Transpose",
        [graph.plain(operand).name],
        shape=equation.shape,
        dtype=equation.dtype,
        attributes={"perm": tuple(equation.params["permutation"])},
    )
    return graph.keep(found)


def _cut(
    graph: Graph,
    operand: Operand,
    starts: Sequence[int],
    stops: Sequence[int],
    strides: Sequence[int],
    dtype: np.dtype,
) -> Value:
    rank = len(starts)
    axes = [
        a
        for a in range(rank)
        if (starts[a], stops[a], strides[a]) != (0, operand.shape[a], 1)
    ]
    rows = [[each[axis] for axis in axes] for each in (starts, stops)] + [
        [stored_axis(axis, rank) for axis in axes],
        [strides[axis] for axis in axes],
    ]
    shape = [
        -(-(stop - start) // stride)
        for start, stop, stride in zip(starts, stops, strides, strict=True)
    ]
    return graph.emit(
        "Slice",
        [
            graph.name_of(operand),
            *(graph.constant(np.array(row, np.int64)) for row in rows),
        ],
        shape=shape,
        dtype=dtype,
    )


def slice(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """Every so many elements from one place to another, along each axis."""
    params = equation.params
    return _cut(
        graph,
        operands[0],
        params["start_indices"],
        params["limit_indices"],
        params["strides"] or (1,) * len(equation.shape),
        equation.dtype,
    )


def pad(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """A constant around an array; a negative width cuts it."""
    operand, fill = operands
    # NumPy's integers too, which ONNX takes for no length.
    config = [tuple(map(int, each)) for each in equation.params["padding_config"]]
    if isinstance(fill, Value) or any(interior for *_, interior in config):
        raise Unsupported("padding by a computed value or between elements")
    order = stored_axes(len(config))
    pads = [max(0, config[axis][end]) for end in range(2) for axis in order]
    wide = [
        length + max(0, low) + max(0, high)
        for length, (low, high, _) in zip(operand.shape, config, strict=True)
    ]
    padded = operand
    if any(pads):
        padded = graph.emit(
            "Pad",
            [
                graph.name_of(operand),
                graph.constant(np.array(pads, np.int64)),
                graph.constant(fill),
            ],
            shape=wide,
            dtype=equation.dtype,
            attributes={"mode": "constant"},
        )
    if padded.shape == equation.shape:
        return padded
    # Cut after that: a side may be cut by more than there was.
    starts = [max(0, -low) for low, _, _ in config]
    stops = [
        length + min(0, high) for length, (_, high, _) in zip(wide, config, strict=True)
    ]
    return _cut(graph, padded, starts, stops, (1,) * len(wide), equation.dtype)


def _join(
    graph: Graph, operands: Sequence[Operand], axis: int, equation: Equation
) -> Value:
    return graph.emit(
        "Concat",
        [graph.name_of(operand) for operand in operands],
        shape=equation.shape,
        dtype=equation.dtype,
        attributes={"axis": stored_axis(axis, len(equation.shape))},
    )


def concatenate(
    graph: Graph, operands: Sequence[Operand], equation: Equation
) -> Operand:
    """Arrays behind one another along an axis."""
    return _join(graph, operands, equation.params["dimension"], equation)


def stack(graph: Graph, operands: Sequence[Operand], equation: Equation) -> Operand:
    """Arrays behind one another along a new axis."""
    axis = equation.params["axis"]
    longer = [
        graph.reshape(operand, (*operand.shape[:axis], 1, *operand.shape[axis:]))
        for operand in operands
    ]
    return _join(graph, longer, axis, equation)
