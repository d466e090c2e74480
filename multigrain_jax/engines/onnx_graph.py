"""An ONNX graph as it grows: values, constants, nodes, and at the end its bytes.

JAX's arrays are channels last, ONNX' convolutions channels first. Every array of four
axes is therefore kept as [N, C, H, W], and `Value` says what it would be in JAX.
Broadcast axes stay 1 as long as what reads them broadcasts by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

OPSET = 18
IR_VERSION = 9
CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)
SMALL = 4096  # elements of constants that are stored once, however often they are made
NO_ATTRIBUTES: Mapping[str, Any] = {}


class Value(NamedTuple):
    """An array that the graph computes.

    Attributes:
        name: in the graph.
        shape: as in JAX, channels last; 1 along axes that are yet to be broadcast.
        dtype: of its elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


# What is known when the graph is made is a NumPy array, with JAX's axes.
Operand = Value | np.ndarray


class Node(NamedTuple):
    """An operation: its name in ONNX, its inputs, value and attributes."""

    operation: str
    inputs: tuple[str, ...]
    value: Value
    attributes: Mapping[str, Any]


def stored_axes(rank: int) -> tuple[int, ...]:
    """The order in which an array's axes are kept."""
    return CHANNELS_FIRST if rank == 4 else tuple(range(rank))


def stored_axis(axis: int, rank: int) -> int:
    """Where an axis of JAX' array is kept."""
    return stored_axes(rank).index(axis)


class Graph:
    """The nodes so far.

    Attributes:
        made_by: the node behind each value, by the value's name.
        constants: arrays that are stored with the graph, by name.
    """

    def __init__(self) -> None:
        """An empty graph."""
        self.made_by: dict[str, Node] = {}
        self.constants: dict[str, np.ndarray] = {}
        self._small: dict[Any, str] = {}
        self._inputs: dict[str, Value] = {}

    def add_input(self, name: str, shape: Sequence[int], dtype: np.dtype) -> Value:
        """An input as JAX has it, channels last."""
        value = Value(name, tuple(shape), dtype)
        self._inputs[name] = value
        if len(shape) != 4:
            return value
        return self.emit(
            "Transpose",
            [name],
            shape=shape,
            dtype=dtype,
            attributes={"perm": CHANNELS_FIRST},
        )

    def constant(self, array: np.ndarray) -> str:
        """The name of an array that is stored with the graph, its axes as they are."""
        array = np.asarray(array, order="C")
        new = f"constant{len(self.constants)}"
        name = new
        if array.size <= SMALL:
            # Engines compute once what reads the same constants.
            key = (array.dtype, array.shape, array.tobytes())
            name = self._small.setdefault(key, new)
        if name == new:
            self.constants[name] = array
        return name

    def emit(
        self,
        operation: str,
        inputs: Sequence[str],
        *,
        shape: Sequence[int],
        dtype: np.dtype,
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
    ) -> Value:
        """A new node's value, of a shape as in JAX."""
        name = f"value{len(self.made_by)}"
        value = Value(name, tuple(shape), dtype)
        self.made_by[name] = Node(operation, tuple(inputs), value, attributes)
        return value

    def name_of(self, operand: Operand) -> str:
        """What a node reads: a value's name, or a constant with its axes as kept."""
        if isinstance(operand, Value):
            return operand.name
        return self.constant(operand.transpose(stored_axes(operand.ndim)))

    def broadcast(self, operand: Operand, shape: Sequence[int]) -> Operand:
        """An operand with its axes of 1 spread out to a shape as in JAX."""
        if operand.shape == tuple(shape):
            return operand
        if not isinstance(operand, Value):
            return np.broadcast_to(operand, shape)
        kept = [shape[axis] for axis in stored_axes(len(shape))]
        return self.emit(
            "Expand",
            [operand.name, self.constant(np.array(kept, np.int64))],
            shape=shape,
            dtype=operand.dtype,
        )

    def reshape(self, operand: Operand, shape: Sequence[int]) -> Operand:
        """An operand with the same elements, in JAX's order, in another shape."""
        shape = tuple(shape)
        if operand.shape == shape:
            return operand
        if not isinstance(operand, Value):
            return operand.reshape(shape)
        if _is_in_order(operand.shape) and _is_in_order(shape):
            return self._reshaped(operand, shape, stored_axes(len(shape)))
        return self.keep(self._reshaped(self.plain(operand), shape, range(len(shape))))

    def plain(self, value: Value) -> Value:
        """A value whose axes are kept as in JAX, also where there are four."""
        return self._transposed(value, CHANNELS_LAST)

    def keep(self, value: Value) -> Value:
        """The inverse of `plain`."""
        return self._transposed(value, CHANNELS_FIRST)

    def _transposed(self, value: Value, perm: Sequence[int]) -> Value:
        if len(value.shape) != 4:
            return value
        return self.emit(
            "Transpose",
            [value.name],
            shape=value.shape,
            dtype=value.dtype,
            attributes={"perm": perm},
        )

    def _reshaped(
        self, value: Value, shape: tuple[int, ...], axes: Sequence[int]
    ) -> Value:
        kept = self.constant(np.array([shape[axis] for axis in axes], np.int64))
        return self.emit(
            "Reshape",
            [value.name, kept],
            shape=shape,
            dtype=value.dtype,
            # A length of 0 is one, and not that of the input.
            attributes={"allowzero": 1},
        )

    def serialize(self, outputs: Mapping[str, Value]) -> bytes:
        """The model as ONNX files hold it, without nodes that no output needs.

        Args:
            outputs: values by the names that they get, as `plain` makes them.
        """
        import onnx

        helper = onnx.helper
        made = [
            self.emit("Identity", [value.name], shape=value.shape, dtype=value.dtype)
            for value in outputs.values()
        ]
        renamed = {each.name: name for each, name in zip(made, outputs, strict=True)}
        nodes = self._needed([each.name for each in made])
        read = {name for node in nodes for name in node.inputs}
        graph = helper.make_graph(
            [
                helper.make_node(
                    node.operation,
                    node.inputs,
                    [renamed.get(node.value.name, node.value.name)],
                    **node.attributes,
                )
                for node in nodes
            ],
            "multigrain",
            [_described(name, value) for name, value in self._inputs.items()],
            [_described(name, value) for name, value in outputs.items()],
            [
                onnx.numpy_helper.from_array(array, name)
                for name, array in self.constants.items()
                if name in read
            ],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="multigrain_jax",
        )
        return model.SerializeToString()

    def _needed(self, outputs: Sequence[str]) -> list[Node]:
        """The nodes behind some values, in the order in which they were made."""
        needed, waiting = set(), list(outputs)
        while waiting:
            name = waiting.pop()
            if name in self.made_by and name not in needed:
                needed.add(name)
                waiting += self.made_by[name].inputs
        return [node for name, node in self.made_by.items() if name in needed]


def _is_in_order(shape: Sequence[int]) -> bool:
    """Whether elements lie in JAX's order although channels are kept first."""
    return len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1


def _described(name: str, value: Value) -> Any:
    import onnx

    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)
