"""Pooling, found again in what is traced of it.

`models.windows` compares or sums strided views of one padded map, one after the other,
so that gradients are PyTorch's. An engine has one fast operation for all of them, which
also pads.
"""

from collections.abc import Sequence
from itertools import product
from operator import add, lt
from typing import NamedTuple

import numpy as np

from multigrain_jax.engines.onnx_graph import Graph, Operand, Value

POOL, CONV = "MaxPool", "Conv"
SPATIAL = (2, 3)  # where rows and columns are kept
# What changes nothing around the maps of these operations, and what they pad with.
NEUTRAL = {POOL: -np.inf, CONV: 0.0}


class _View(NamedTuple):
    """A strided view of a map: of which, from which row and column, in which steps."""

    source: str
    start: tuple[int, int]
    steps: tuple[int, int]
    shape: tuple[int, ...]


def largest_of_windows(
    graph: Graph, which: Operand, one: Operand, other: Operand
) -> Value | None:
    """The larger one of two values, where a choice is that; None where it is not.

    Args:
        graph: where they are computed.
        which: what is chosen by: `other > one or isnan(other)`.
        one: taken where that is false.
        other: taken where that is true. Of a window with a NaN among numbers an engine
            gives what it likes.
    """
    if not (
        isinstance(which, Value) and isinstance(one, Value) and isinstance(other, Value)
    ):
        return None
    if not _is_larger(graph, which.name, one.name, other.name):
        return None
    shape = np.broadcast_shapes(one.shape, other.shape)
    dtype = other.dtype
    views = _views_of_all(graph, (one.name, other.name))
    kernel = None if views is None else _raster(graph, views, shape)
    if not views or kernel is None:
        return graph.emit("Max", [one.name, other.name], shape=shape, dtype=dtype)
    return graph.emit(
        POOL,
        [views[0].source],
        shape=shape,
        dtype=dtype,
        attributes={"kernel_shape": kernel, "strides": views[0].steps},
    )


def sums_of_windows(graph: Graph) -> None:
    """Make one operation of each sum of the views that fill windows of a map.

    A convolution with ones, each channel alone: what average pooling divides.

    Args:
        graph: whose nodes are all there; sums are changed.
    """
    parts: dict[str, list[_View] | None] = {
        name: [] for name, array in graph.constants.items() if not array.any()
    }
    for name, node in graph.made_by.items():
        if node.operation == "Slice":
            parts[name] = _views(graph, name)
        if node.operation != "Add" or node.value.dtype != np.float32:
            continue
        one, other = (parts.get(each) for each in node.inputs)
        views = None if one is None or other is None else one + other
        # Twice the same one is no window, and would double with each sum.
        if views is None or len(set(views)) < len(views):
            continue
        parts[name] = views
        shape = node.value.shape
        kernel = _raster(graph, views, shape) if len(views) > 1 else None
        if kernel is not None:
            ones = np.ones((shape[-1], 1, *kernel), np.float32)
            graph.made_by[name] = node._replace(
                operation=CONV,
                inputs=(views[0].source, graph.constant(ones)),
                attributes={
                    "group": shape[-1],
                    "kernel_shape": kernel,
                    "strides": views[0].steps,
                },
            )


def pad_in_windows(graph: Graph) -> None:
    """Let pooling and convolutions pad their maps themselves.

    A padding of its own stands between operations that keep maps in an order of the
    engine's, and has them put into another one and back.

    Args:
        graph: whose nodes are all there; poolings and convolutions are changed.
    """
    for name, node in graph.made_by.items():
        padding = graph.made_by.get(node.inputs[0]) if node.inputs else None
        if node.operation not in NEUTRAL or padding is None:
            continue
        if padding.operation != "Pad":
            continue
        source, pads, fill = padding.inputs
        before, after = graph.constants[pads].reshape(2, -1).tolist()
        around = [before[axis] for axis in SPATIAL] + [after[axis] for axis in SPATIAL]
        if sum(around) < sum(before + after):  # it pads other axes too
            continue
        if graph.constants[fill] != NEUTRAL[node.operation]:
            continue
        # Engines refuse windows that could lie in the padding as a whole.
        sides = node.attributes["kernel_shape"]
        if node.operation == POOL and not all(map(lt, around, [*sides, *sides])):
            continue
        own = node.attributes.get("pads", [0] * len(around))
        attributes = {**node.attributes, "pads": [*map(add, around, own)]}
        graph.made_by[name] = node._replace(
            inputs=(source, *node.inputs[1:]), attributes=attributes
        )


def _is_larger(graph: Graph, which: str, one: str, other: str) -> bool:
    """Whether a value is `other > one or isnan(other)`."""
    choice = graph.made_by.get(which)
    if choice is None or choice.operation != "Or":
        return False
    larger, is_nan = (graph.made_by.get(name) for name in choice.inputs)
    if larger is None or is_nan is None:
        return False
    same = graph.made_by.get(is_nan.inputs[0])
    return (
        (larger.operation, larger.inputs) == ("Greater", (other, one))
        and is_nan.operation == "Not"
        and same is not None
        and (same.operation, same.inputs) == ("Equal", (other, other))
    )


def _views_of_all(graph: Graph, names: Sequence[str]) -> list[_View] | None:
    """The views behind several values; None where one is something else."""
    found: list[_View] = []
    for name in names:
        views = _views(graph, name)
        if views is None:
            return None
        found += views
    return found


def _views(graph: Graph, name: str) -> list[_View] | None:
    """The views whose largest elements a value is; None where it is something else."""
    node = graph.made_by.get(name)
    if node is None or len(node.value.shape) != 4:
        return None
    if node.operation == "Max":
        return _views_of_all(graph, node.inputs)
    if node.operation == POOL:
        rows, columns = map(range, node.attributes["kernel_shape"])
        steps = node.attributes["strides"]
        shape = node.value.shape
        return [
            _View(node.inputs[0], at, steps, shape) for at in product(rows, columns)
        ]
    if node.operation == "Slice":
        starts, _, axes, steps = (
            graph.constants[each].tolist() for each in node.inputs[1:]
        )
        if set(axes) <= set(SPATIAL):
            # An axis that is seen as a whole is not named.
            start = dict(zip(axes, starts, strict=True))
            step = dict(zip(axes, steps, strict=True))
            row, column = (start.get(axis, 0) for axis in SPATIAL)
            down, right = (step.get(axis, 1) for axis in SPATIAL)
            return [
                _View(node.inputs[0], (row, column), (down, right), node.value.shape)
            ]
    return None


def _raster(
    graph: Graph, views: Sequence[_View], shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """Height and width of the window that some views make, if they fill one.

    Pooling by it has to end where the views end, with a result of their shape, to which
    none of them is broadcast.
    """
    rows, columns = (max(1 + view.start[axis] for view in views) for axis in range(2))
    places = list(product(range(rows), range(columns)))
    one_map = {(view.source, view.steps, view.shape) for view in views}
    if views[0].shape != shape:
        return None
    if len(one_map) > 1 or sorted(view.start for view in views) != places:
        return None
    source = graph.made_by.get(views[0].source)
    if source is None:
        return None
    for axis, side in enumerate((rows, columns)):
        windows = (source.value.shape[1 + axis] - side) // views[0].steps[axis] + 1
        if windows != shape[1 + axis]:
            return None
    return rows, columns
