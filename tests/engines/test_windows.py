"""Max pooling is one operation of the engine; the numbers are those of ours."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.engines import as_onnx, assert_same

from multigrain_jax.models.windows import FeatureMap, max_pool

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MAPS = np.random.default_rng(0).normal(size=(2, 11, 14, 3)).astype(np.float32)
SIZES = np.array([[11, 14], [6, 9]], np.int32)


def pooled(inputs, **options):
    found = max_pool(FeatureMap(inputs["x"], inputs.get("size")), **options)
    return {"y": found.values}


def operations(function, inputs):
    model = onnx.load_from_string(as_onnx(function, inputs))
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "rounding": "ceil"},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": (1, 3), "stride": 1},
        {"kernel_size": 3, "stride": 1, "padding": ((0, 2), (1, 1))},
    ],
    ids=str,
)
@pytest.mark.parametrize("inputs", [{"x": MAPS}, {"x": MAPS, "size": SIZES}], ids=len)
def test_max_pooling_is_one_operation(options, inputs):
    def function(inputs):
        return pooled(inputs, **options)

    assert_same(function, inputs, rtol=0, atol=0)
    found = operations(function, inputs)
    assert found.count("MaxPool") == 1 and "Max" not in found


def test_two_poolings_behind_one_another_stay_two():
    def function(inputs):
        once = pooled(inputs, kernel_size=3, stride=2)
        return {"y": pooled({"x": once["y"]}, kernel_size=2, stride=2)["y"]}

    assert_same(function, {"x": MAPS}, rtol=0, atol=0)
    assert operations(function, {"x": MAPS}).count("MaxPool") == 2


CHOICES = {
    "the smaller one": lambda a, b: jnp.where((b < a) | jnp.isnan(b), b, a),
    "without the NaN": lambda a, b: jnp.where(b > a, b, a),
    "another one's NaN": lambda a, b: jnp.where((b > a) | jnp.isnan(a), b, a),
    "the other way round": lambda a, b: jnp.where((b > a) | jnp.isnan(b), a, b),
}


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_another_choice_stays_one(choice):
    def function(inputs):
        return {"y": CHOICES[choice](inputs["x"][:, ::2], inputs["x"][:, 1::2])}

    inputs = {"x": MAPS[:, :10]}
    assert_same(function, inputs, rtol=0, atol=0)
    assert "Where" in operations(function, inputs)


def test_views_that_fill_no_window_are_compared():
    def larger(a, b):
        return jnp.where((b > a) | jnp.isnan(b), b, a)

    def function(inputs):
        x = inputs["x"]
        return {"y": larger(x[:, 0:9:2, 0:9:2], x[:, 2:11:2, 2:11:2])}

    assert_same(function, {"x": MAPS}, rtol=0, atol=0)
    assert "Max" in operations(function, {"x": MAPS})
