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


def larger(a, b):
    return jnp.where((b > a) | jnp.isnan(b), b, a)


NO_WINDOWS = {
    "places that fill no window": lambda x: larger(
        x[:, :9:2, :9:2], x[:, 2::2, 2:11:2]
    ),
    "views that end early": lambda x: larger(x[:, :5], x[:, 1:6]),
    "one that is no view": lambda x: larger(jnp.abs(x[:, 1::2]), x[:, :10:2]),
    "another that is no view": lambda x: larger(x[:, :10:2], jnp.abs(x[:, 1::2])),
    "the larger of a view and a number": lambda x: larger(
        jnp.maximum(x[:, :10:2], 0.5), x[:, 1::2]
    ),
    "views of a batch": lambda x: larger(x[:1], x[1:]),
    "views of channels": lambda x: larger(x[..., :2], x[..., 1:]),
    "views of rows without channels": lambda x: larger(x[0, :, ::2], x[0, :, 1::2]),
    "views of two maps": lambda x: larger(x[:, :10:2], (x * 2)[:, 1::2]),
    "views in other steps": lambda x: larger(x[:, :4:1], x[:, 1:8:2]),
    "one that is broadcast": lambda x: larger(
        jnp.abs(x), jnp.broadcast_to(x[:1], x.shape)
    )[:, None, 0],
}


@pytest.mark.parametrize("case", sorted(NO_WINDOWS))
def test_what_is_no_window_is_compared(case):
    def function(inputs):
        return {"y": NO_WINDOWS[case](inputs["x"])}

    assert_same(function, {"x": MAPS}, rtol=0, atol=0)
    assert "MaxPool" not in operations(function, {"x": MAPS})


def test_a_choice_by_what_is_known_or_given_stays_one():
    known = np.arange(14)[None, None, :, None] % 2 == 0

    def function(inputs):
        x = inputs["x"]
        return {"y": jnp.where((x > 0) | known, x, -x), "z": jnp.where(known, x, -x)}

    assert_same(function, {"x": MAPS}, rtol=0, atol=0)


def test_infinities_are_compared():
    maps = MAPS.copy()
    maps[0, 3, 4] = np.inf
    maps[1, :5, :5] = -np.inf
    assert_same(lambda inputs: pooled(inputs, kernel_size=3, stride=2), {"x": maps})
