"""Pooling is one operation of the engine; the numbers are those of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.engines import as_onnx, assert_same

from multigrain_jax.models.windows import FeatureMap, average_pool, max_pool

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


WINDOWS = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": (1, 3), "stride": 1},
    {"kernel_size": 3, "stride": 1, "padding": ((0, 2), (1, 1))},
]
CEIL = {"kernel_size": 3, "stride": 2, "rounding": "ceil"}


@pytest.mark.parametrize("options", [*WINDOWS, CEIL], ids=str)
@pytest.mark.parametrize("inputs", [{"x": MAPS}, {"x": MAPS, "size": SIZES}], ids=len)
def test_max_pooling_is_one_operation(options, inputs):
    def function(inputs):
        return pooled(inputs, **options)

    assert_same(function, inputs, rtol=0, atol=0)
    found = operations(function, inputs)
    assert found.count("MaxPool") == 1 and not {"Max", "Pad"} & {*found}


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("inputs", [{"x": MAPS}, {"x": MAPS, "size": SIZES}], ids=len)
def test_sums_of_windows_are_one_convolution(options, inputs):
    def function(inputs):
        features = FeatureMap(inputs["x"], inputs.get("size"))
        return {"y": average_pool(features, **options).values}

    assert_same(function, inputs)
    found = operations(function, inputs)
    assert found.count("Conv") == 1 and "Pad" not in found
    assert "size" in inputs or "Add" not in found


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
    "a row for all rows": lambda x: larger(x[:, :1], x[:, 1:]),
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


def doubled(x, times):
    for _ in range(times):
        x = x + x
    return x


NO_SUMS = {
    "places that fill no window": lambda x: x[:, :9:2, :9:2] + x[:, 2::2, 2:11:2],
    "views that end early": lambda x: x[:, :5] + x[:, 1:6],
    "a row for all rows": lambda x: x[:, :1] + x[:, 1:],
    "zeros that spread it": lambda x: jnp.zeros((2, 10, 14, 3)) + x[:1, 1:],
    "one that is no view": lambda x: jnp.abs(x[:, 1::2]) + x[:, :10:2],
    "another that is no view": lambda x: x[:, :10:2] + jnp.abs(x[:, 1::2]),
    "a number": lambda x: (x[:, :10:2] + 0.5) + x[:, 1::2],
    "a view less another": lambda x: x[:, :10:2] - x[:, 1::2],
    "views of a batch": lambda x: x[:1] + x[1:],
    "views of channels": lambda x: x[..., :2] + x[..., 1:],
    "views of rows without channels": lambda x: x[0, :, ::2] + x[0, :, 1::2],
    "views of two maps": lambda x: x[:, :10:2] + (x * 2)[:, 1::2],
    "the same view again and again": lambda x: doubled(x[:, 1::2], 40),
    "integers": lambda x: x[:, :10:2].astype(int) + x[:, 1::2].astype(int),
}


@pytest.mark.parametrize("case", sorted(NO_SUMS))
def test_what_is_no_sum_of_windows_is_added(case):
    def function(inputs):
        return {"y": NO_SUMS[case](inputs["x"])}

    assert_same(function, {"x": MAPS})
    assert "Conv" not in operations(function, {"x": MAPS})


def conv(x, padding):
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), padding, dimension_numbers=layout
    )


def padded(x, widths, value=0.0):
    return jnp.pad(x, widths, constant_values=value)


def compared(x, widths, value=-np.inf):
    # Of sides that the windows fill: nothing is cut between the two.
    return pooled({"x": padded(x, widths, value)}, kernel_size=3, stride=2)["y"]


# A function of maps, and how many paddings are left.
PADDED = {
    "before a convolution": (
        lambda x: conv(padded(x, ((0, 0), (1, 2), (0, 4), (0, 0))), "VALID"),
        0,
    ),
    "before one that pads": (
        lambda x: conv(padded(x, ((0, 0), (1, 2), (0, 4), (0, 0))), ((1, 0), (0, 2))),
        0,
    ),
    "by another number": (
        lambda x: conv(padded(x, ((0, 0), (1, 1), (1, 1), (0, 0)), 0.5), "VALID"),
        1,
    ),
    "of the batch": (
        lambda x: conv(padded(x, ((1, 0), (1, 1), (1, 1), (0, 0))), "VALID"),
        1,
    ),
    "before a pooling": (
        lambda x: compared(x, ((0, 0), (2, 0), (0, 1), (0, 0))),
        0,
    ),
    "before a pooling, by zeros": (
        lambda x: compared(x, ((0, 0), (1, 1), (0, 1), (0, 0)), 0.0),
        1,
    ),
    "before a pooling, wider than its window": (
        lambda x: compared(x, ((0, 0), (3, 1), (0, 1), (0, 0))),
        1,
    ),
    "before a pooling, of channels": (
        lambda x: compared(x, ((0, 0), (1, 1), (0, 1), (0, 1))),
        1,
    ),
}


@pytest.mark.parametrize("case", sorted(PADDED))
def test_padding_is_left_to_what_comes_after_it_if_that_pads_so(case):
    function, left = PADDED[case]
    assert_same(lambda inputs: {"y": function(inputs["x"])}, {"x": MAPS})
    found = operations(lambda inputs: {"y": function(inputs["x"])}, {"x": MAPS})
    assert found.count("Pad") == left


def test_maps_that_are_read_padded_too_stay_padded():
    def function(inputs):
        wide = padded(inputs["x"], ((0, 0), (1, 1), (1, 1), (0, 0)))
        return {"y": conv(wide, "VALID"), "z": wide}

    assert_same(function, {"x": MAPS})
