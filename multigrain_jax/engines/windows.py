"""Max pooling, found again in what is traced of it.

`models.windows.max_pool` compares strided views of one padded map, one after the other,
so that gradients are PyTorch's. An engine has one fast operation for all of them.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from multigrain_jax.engines.onnx_graph import Graph, Operand, Value

POOL = "MaxPool"
SPATIAL = (2, 3)  # where rows and columns are kept


class _View(NamedTuple):
    """A strided view of a map: of which, from which row and column, in which steps."""

    source: str
    start: tuple[int, int]
    steps: tuple[int, int]


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
        return [_View(node.inputs[0], at, steps) for at in product(rows, columns)]
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
            return [_View(node.inputs[0], (row, column), (down, right))]
    return None


def _raster(
    graph: Graph, views: Sequence[_View], shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """Height and width of the window that some views make, if they fill one.

    Pooling by it has to end where the views end, with a result of their shape.
    """
    rows, columns = (max(1 + view.start[axis] for view in views) for axis in range(2))
    places = list(product(range(rows), range(columns)))
    one_map = {(view.source, view.steps) for view in views}
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
