"""A graph keeps maps channels first, and only what its outputs need."""

import numpy as np
import pytest

from multigrain_jax.engines.onnx_graph import Graph, Value, stored_axes, stored_axis

onnx = pytest.importorskip("onnx")
FLOAT = np.dtype(np.float32)


def test_four_axes_are_kept_channels_first():
    assert stored_axes(4) == (0, 3, 1, 2)
    assert [stored_axis(axis, 4) for axis in range(4)] == [0, 2, 3, 1]
    assert stored_axes(3) == (0, 1, 2)


def test_a_model_holds_what_its_outputs_need():
    graph = Graph()
    images = graph.add_input("images", (2, 4, 6, 3), FLOAT)
    graph.emit("Abs", [images.name], shape=images.shape, dtype=FLOAT)
    graph.constant(np.ones(1000))
    used = graph.constant(np.ones(3, np.float32)[:, None, None])
    output = graph.emit("Add", [images.name, used], shape=images.shape, dtype=FLOAT)
    model = onnx.load_from_string(graph.serialize({"sum": graph.plain(output)}))
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == [
        "Transpose",
        "Add",
        "Transpose",
        "Identity",
    ]
    assert [i.name for i in model.graph.initializer] == [used]
    shapes = [
        [d.dim_value for d in each.type.tensor_type.shape.dim]
        for each in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [[2, 4, 6, 3], [2, 4, 6, 3]]


def test_a_small_constant_is_stored_once():
    graph = Graph()
    first = graph.constant(np.zeros(3, np.float32))
    assert graph.constant(np.zeros(3, np.float32)) == first
    others = [np.zeros(3, np.int32), np.zeros((3, 1), np.float32), -np.zeros(3)]
    assert len({first, *map(graph.constant, others)}) == 4
    large = np.zeros(100_000, np.float32)
    assert graph.constant(large) != graph.constant(large)
    assert len(graph.constants) == 6


def test_known_arrays_are_computed_with_and_not_stored():
    graph = Graph()
    known = np.arange(6.0).reshape(1, 6)
    np.testing.assert_array_equal(graph.reshape(known, (2, 3)), known.reshape(2, 3))
    assert graph.broadcast(known, (4, 6)).shape == (4, 6)
    assert not graph.made_by and not graph.constants
    value = Value("x", (1, 6), FLOAT)
    assert graph.reshape(value, (1, 6)) is value
    assert graph.broadcast(value, (1, 6)) is value
