"""Max pooling, found again in what is traced of it.

`models.windows.max_pool` compares strided views of one padded map, one after the other,
so that gradients are PyTorch's. An engine has one fast operation for all of them.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

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
        other: taken where that is true; a NaN stays one.
    """
    if not (
        isinstance(which, Value) and isinstance(one, Value) and isinstance(other, Value)
    ):
        return None
    if not _is_larger(graph, which.name, one.name, other.name):
        return None
    views = [*_views(graph, one.name), *_views(graph, other.name)]
    shape, dtype = other.shape, other.dtype
    if not views or (kernel := _raster(views)) is None:
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
    larger, is_nan = (graph.made_by[name] for name in choice.inputs)
    same = graph.made_by.get(is_nan.inputs[0])
    return (
        (larger.operation, larger.inputs) == ("Greater", (other, one))
        and is_nan.operation == "Not"
        and same is not None
        and (same.operation, same.inputs) == ("Equal", (other, other))
    )


def _views(graph: Graph, name: str) -> list[_View]:
    """The views whose largest elements a value is; none where it is something else."""
    node = graph.made_by.get(name)
    if node is None:
        return []
    if node.operation == "Max":
        return [view for each in node.inputs for view in _views(graph, each)]
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
    return []


def _raster(views: Sequence[_View]) -> tuple[int, int] | None:
    """Height and width of the window that some views make, if they fill one."""
    rows, columns = (max(1 + view.start[axis] for view in views) for axis in range(2))
    places = list(product(range(rows), range(columns)))
    one_map = {(view.source, view.steps) for view in views}
    if len(one_map) > 1 or sorted(view.start for view in views) != places:
        return None
    return rows, columns
