"""Convolution, linear layer and batch norm, against plain loops and properties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from multigrain_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    Linear,
    fan_in_uniform,
    fan_out_normal,
    group_moments,
)

# in, out, kernel, stride, padding ((top, bottom), (left, right)), groups, bias
CONVOLUTIONS = {
    "3x3": (4, 6, (3, 3), 1, ((1, 1), (1, 1)), 1, False),
    "7x7 stem": (3, 5, (7, 7), 2, ((3, 3), (3, 3)), 1, False),
    "1x1 bias": (4, 3, (1, 1), 1, ((0, 0), (0, 0)), 1, True),
    "1x1 stride": (4, 3, (1, 1), 2, ((0, 0), (0, 0)), 1, False),
    "1x1 odd positions": (4, 3, (1, 1), 2, ((-1, 1), (-1, 1)), 1, False),
    "asymmetric": (4, 6, (5, 3), 2, ((1, 2), (0, 1)), 1, True),
    "groups": (4, 6, (3, 3), 2, ((1, 1), (1, 1)), 2, True),
    "depthwise": (4, 4, (5, 5), 2, ((2, 2), (2, 2)), 4, False),
    "tiny output": (4, 6, (3, 3), 4, ((1, 1), (1, 1)), 1, True),
}


def make_conv(name, dtype=jnp.float32):
    in_channels, out_channels, kernel, stride, padding, groups, bias = CONVOLUTIONS[
        name
    ]
    return Conv(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        use_bias=bias,
        dtype=dtype,
        rng=np.random.default_rng(1),
    )


def plain_convolution(x, kernel, stride, padding, groups):
    """One image [H, W, C], position by position, in float64."""
    (top, bottom), (left, right) = padding
    # A negative padding before drops rows and columns.
    x = x[max(-top, 0) :, max(-left, 0) :].astype(np.float64)
    x = np.pad(x, ((max(top, 0), bottom), (max(left, 0), right), (0, 0)))
    rows = (x.shape[0] - kernel.shape[0]) // stride + 1
    columns = (x.shape[1] - kernel.shape[1]) // stride + 1
    ins, outs = kernel.shape[2], kernel.shape[3] // groups
    out = np.zeros((rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            patch = x[row * stride :, column * stride :]
            patch = patch[: kernel.shape[0], : kernel.shape[1]]
            for group in range(groups):
                part = patch[..., group * ins : (group + 1) * ins]
                weights = kernel[..., group * outs : (group + 1) * outs]
                out[row, column, group * outs : (group + 1) * outs] = np.einsum(
                    "hwi,hwio->o", part, weights
                )
    return out


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    _, _, _, stride, padding, groups, bias = CONVOLUTIONS[name]
    conv = make_conv(name)
    shape = (2, 8, 7, CONVOLUTIONS[name][0])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = np.asarray(jax.jit(lambda x: conv(FeatureMap(x)).values)(x))
    kernel = np.asarray(conv.kernel[...])
    for image in range(2):
        want = plain_convolution(x[image], kernel, stride, padding, groups)
        want = want + np.asarray(conv.bias[...]) if bias else want
        np.testing.assert_allclose(got[image], want, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_of_valid_areas(name):
    conv = make_conv(name)
    layer = jax.jit(lambda x: conv(x))
    shape = (3, 12, 9, CONVOLUTIONS[name][0])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sizes = np.array([[12, 9], [7, 8], [10, 7]], np.int32)
    out = layer(FeatureMap(x, jnp.asarray(sizes)))
    for row, (height, width) in enumerate(sizes):
        alone = layer(FeatureMap(x[row : row + 1, :height, :width])).values
        assert out.sizes[row].tolist() == list(alone.shape[1:3])
        inside = np.asarray(out.values)[row, : alone.shape[1], : alone.shape[2]]
        np.testing.assert_allclose(inside, alone[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("side", "stride"), ((1, 1), (2, 1), (3, 2), (4, 2)))
def test_tiny_outputs_equal_the_convolution_with_gradients(side, stride):
    conv = Conv(8, 6, 3, stride=stride, padding=1, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((3, side, side, 8)), jnp.float32)
    graphdef, state = nnx.split(conv)

    def ours(x, state):
        return nnx.merge(graphdef, state)(FeatureMap(x)).values

    def theirs(x, state):
        return lax.conv_general_dilated(
            x,
            state["kernel"][...],
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    assert "conv_general_dilated" not in str(jax.make_jaxpr(ours)(x, state))
    results = []
    for function in (ours, theirs):
        out, pullback = jax.vjp(function, x, state)
        dx, dstate = pullback(
            jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        )
        results.append((out, dx, dstate["kernel"][...]))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


def test_initial_values():
    rng = np.random.default_rng(0)
    normal = Conv(64, 128, 3, padding=1, initializer=fan_out_normal, rng=rng).kernel[
        ...
    ]
    assert normal.shape == (3, 3, 64, 128)
    np.testing.assert_allclose(np.std(normal), np.sqrt(2 / (9 * 128)), rtol=0.02)
    assert abs(np.mean(normal)) < 1e-3
    # The tails tell a normal from a uniform: 4.6 % lie beyond two deviations.
    assert 0.04 < np.mean(np.abs(normal) > 2 * np.std(normal)) < 0.05

    grouped = Conv(64, 128, 3, groups=8, use_bias=True, rng=rng)
    linear = Linear(72, 500, rng=rng)
    for values in (grouped.kernel, grouped.bias, linear.kernel, linear.bias):
        values = np.asarray(values[...])
        bound = 1 / np.sqrt(72)  # 3 · 3 · 64 / 8 as well
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.97 * bound
        np.testing.assert_allclose(np.std(values), bound / np.sqrt(3), rtol=0.1)
    assert linear.kernel[...].shape == (72, 500)
    assert fan_in_uniform(rng, (5, 2), 4).shape == (5, 2)


def test_without_a_generator_parameters_are_zeros_of_the_same_shapes():
    for layer in (partial(Conv, 4, 6, 3, use_bias=True), partial(Linear, 4, 6)):
        drawn, zeros = layer(rng=np.random.default_rng(0)), layer(rng=None)
        for name in ("kernel", "bias"):
            found, want = getattr(zeros, name)[...], getattr(drawn, name)[...]
            assert (found.shape, found.dtype) == (want.shape, want.dtype)
            assert np.any(want != 0) and not np.any(found)


def plain_batch_norm(x, group, eps):
    """Per group and channel, in float64: result, mean, unbiased variance."""
    out, means, variances = np.empty_like(x, np.float64), [], []
    for start in range(0, len(x), group):
        rows = slice(start, start + group)
        cells = x[rows].astype(np.float64)
        mean = cells.mean(axis=(0, 1, 2))
        deviation = np.sqrt(cells.var(axis=(0, 1, 2)) + eps)
        out[rows] = (cells - mean) / deviation
        means.append(mean)
        variances.append(cells.var(axis=(0, 1, 2), ddof=1))
    return out, np.mean(means, axis=0), np.mean(variances, axis=0)


@pytest.mark.parametrize("group", (2, 3, 6))
def test_batch_norm_statistics_are_those_of_groups(group):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((6, 3, 5, 4)) * 2 + rng.standard_normal(4)).astype(
        np.float32
    )
    norm = BatchNorm(4, eps=1e-3, group_size=group)
    norm.scale[...] = jnp.asarray([1.0, 2.0, 0.5, -1.0])
    norm.bias[...] = jnp.asarray([0.0, 1.0, -1.0, 3.0])
    norm.mean[...] = jnp.full(4, 0.5)
    norm.var[...] = jnp.full(4, 3.0)
    got = norm(FeatureMap(jnp.asarray(x))).values
    normalised, mean, var = plain_batch_norm(x, group, 1e-3)
    want = normalised * [1.0, 2.0, 0.5, -1.0] + [0.0, 1.0, -1.0, 3.0]
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)
    np.testing.assert_allclose(norm.mean[...], 0.9 * 0.5 + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 * 3.0 + 0.1 * var, rtol=1e-5)


def test_batch_norm_gradient_is_that_of_the_two_pass_formula():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.standard_normal((4, 3, 5, 6)))
        weights = jnp.asarray(rng.standard_normal((4, 3, 5, 6)))

        def ours(x):
            norm = BatchNorm(6, eps=1e-5, group_size=2, dtype=jnp.float64)
            return (norm(FeatureMap(x)).values * weights).sum()

        def plain(x):
            groups = x.reshape(2, 2, 3, 5, 6)
            mean = groups.mean(axis=(1, 2, 3), keepdims=True)
            var = jnp.square(groups - mean).mean(axis=(1, 2, 3), keepdims=True)
            normalised = (groups - mean) / jnp.sqrt(var + 1e-5)
            return (normalised.reshape(x.shape) * weights).sum()

        got, want = (np.asarray(jax.jit(jax.grad(f))(x)) for f in (ours, plain))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_batch_norm_where_the_mean_is_far_above_the_deviation():
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((8, 16, 16, 3))).astype(np.float32)
    norm = BatchNorm(3, eps=1e-5, group_size=4)
    got = np.asarray(norm(FeatureMap(jnp.asarray(x))).values)
    want, _, var = plain_batch_norm(x, 4, 1e-5)
    # Half a unit in the last place of 1000 is 3e-5, or 3e-4 deviations.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-6)
    _, biased = group_moments(jnp.asarray(x), group_size=8)
    np.testing.assert_allclose(
        biased[0], x.astype(np.float64).var(axis=(0, 1, 2)), rtol=1e-4
    )


def test_batch_norm_of_two_groups_is_that_of_two_batches():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((16, 4, 4, 3)), jnp.float32)
    together = BatchNorm(3, eps=1e-5, group_size=8)(FeatureMap(x)).values
    for rows in (slice(0, 8), slice(8, 16)):
        # A batch smaller than the group is one group.
        alone = BatchNorm(3, eps=1e-5, group_size=64)(FeatureMap(x[rows])).values
        np.testing.assert_array_equal(together[rows], alone)


def test_batch_norm_of_a_single_value_is_finite():
    norm = BatchNorm(2, eps=1e-5, group_size=64)
    out = norm(FeatureMap(jnp.full((1, 1, 1, 2), 5.0)))
    np.testing.assert_array_equal(out.values, 0)
    np.testing.assert_allclose(norm.var[...], 0.9)


def test_batch_norm_in_evaluation_uses_the_running_values_and_keeps_them():
    norm = BatchNorm(2, eps=1e-3, group_size=4)
    norm.mean[...], norm.var[...] = jnp.asarray([1.0, -2.0]), jnp.asarray([4.0, 0.25])
    norm.eval()
    x = np.random.default_rng(0).standard_normal((3, 2, 2, 2)).astype(np.float32)
    got = norm(FeatureMap(jnp.asarray(x))).values
    want = (x - [1.0, -2.0]) / np.sqrt(np.array([4.0, 0.25]) + 1e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(norm.mean[...], [1.0, -2.0])
    norm.train()
    norm(FeatureMap(jnp.asarray(x)))
    assert (np.asarray(norm.mean[...]) != [1.0, -2.0]).all()


def test_batch_norm_refuses_what_has_no_statistics():
    norm = BatchNorm(1, eps=1e-5, group_size=4)
    with pytest.raises(ValueError, match=r"6 samples .* groups of 4"):
        norm(FeatureMap(jnp.zeros((6, 2, 2, 1))))
    sizes = jnp.ones((4, 2), jnp.int32)
    with pytest.raises(ValueError, match="different sizes"):
        norm(FeatureMap(jnp.zeros((4, 2, 2, 1)), sizes))


@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float32, jnp.float64))
def test_compute_and_parameter_dtypes(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        stored = jnp.float64 if dtype == jnp.float64 else jnp.float32
        norm = BatchNorm(6, eps=1e-5, group_size=4, dtype=dtype)
        linear = Linear(4, 2, dtype=dtype, rng=np.random.default_rng(0))
        x = FeatureMap(jnp.ones((2, 4, 4, 4), stored))
        for name in ("3x3", "groups", "tiny output"):
            conv = make_conv(name, dtype)
            out = conv(x)
            assert norm(out).values.dtype == out.values.dtype == dtype
            assert conv.kernel[...].dtype == stored
        assert linear(x.values).dtype == dtype
        for value in (norm.scale, norm.bias, norm.mean, norm.var, linear.kernel):
            assert value[...].dtype == stored
