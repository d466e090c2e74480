"""Pooling and the arithmetic of windows, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.models.windows import (
    FeatureMap,
    average_pool,
    crop_to,
    global_average_pool,
    mask_outside,
    max_pool,
    output_size,
    relu,
)

# kernel, stride, padding (before, after)
WINDOWS = (
    (3, 2, (1, 1)),
    (3, 2, (0, 0)),
    (3, 1, (1, 1)),
    (3, 2, (0, 1)),
    (2, 2, (1, 1)),
)


def windows_of(x, kernel, stride, padding, out):
    """{(row, column): the cells of x [H, W, C] under that window, [n, C]}."""
    height, width, channels = x.shape
    found = {}
    for row in range(out[0]):
        for column in range(out[1]):
            top, left = row * stride - padding[0], column * stride - padding[0]
            rows = slice(max(top, 0), min(top + kernel, height))
            columns = slice(max(left, 0), min(left + kernel, width))
            found[row, column] = x[rows, columns].reshape(-1, channels)
    return found


def plain_output_size(size, kernel, stride, padding, rounding):
    """Counts the windows one by one."""
    before, after = padding
    starts = range(-before, size + after, stride)
    whole = [start for start in starts if start + kernel <= size + after]
    if rounding == "floor" or not whole:
        return len(whole)
    following = whole[-1] + stride
    incomplete = whole[-1] + kernel < size + after and following < size
    return len(whole) + int(incomplete)


@pytest.mark.parametrize("rounding", ("floor", "ceil"))
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_output_size(kernel, stride, padding, rounding):
    sides = range(3, 20)
    geometry = {"kernel": kernel, "stride": stride, "padding": padding}
    want = [plain_output_size(n, kernel, stride, padding, rounding) for n in sides]
    got = [output_size(n, **geometry, rounding=rounding) for n in sides]
    traced = output_size(
        jnp.arange(3, 20, dtype=jnp.int32), **geometry, rounding=rounding
    )
    assert got == want
    assert traced.tolist() == want


@pytest.mark.parametrize("rounding", ("floor", "ceil"))
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_max_pool(kernel, stride, padding, rounding):
    x = np.random.default_rng(0).standard_normal((2, 8, 7, 3)).astype(np.float32) - 5
    got = jax.jit(
        lambda x: (
            max_pool(
                FeatureMap(x),
                kernel,
                stride=stride,
                padding=(padding, padding),
                rounding=rounding,
            ).values
        )
    )(x)
    got = np.asarray(got)
    out = [plain_output_size(n, kernel, stride, padding, rounding) for n in (8, 7)]
    assert got.shape == (2, *out, 3)
    for image in range(2):
        cells = windows_of(x[image], kernel, stride, padding, out)
        for place, values in cells.items():
            np.testing.assert_array_equal(got[image][place], values.max(axis=0))


def test_the_first_maximum_takes_the_gradient():
    x = jnp.asarray([[1.0, 2.0], [2.0, 0.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: max_pool(FeatureMap(x), 2, stride=2).values.sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1], [0, 0]])


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_gradients_of_overlapping_maxima_add_up(kernel, stride, padding):
    rng = np.random.default_rng(1)
    x = rng.permutation(8 * 7 * 3).astype(np.float32).reshape(1, 8, 7, 3)
    out = [plain_output_size(n, kernel, stride, padding, "floor") for n in (8, 7)]
    weights = rng.integers(1, 9, (1, *out, 3)).astype(np.float32)

    def weighted(x):
        pads = (padding, padding)
        pooled = max_pool(FeatureMap(x), kernel, stride=stride, padding=pads)
        return (pooled.values * weights).sum()

    wanted = np.zeros(x.shape, np.float32)
    for place, values in windows_of(x[0], kernel, stride, padding, out).items():
        for channel in range(3):
            winner = x[0, :, :, channel] == values[:, channel].max()
            wanted[0, winner, channel] += weights[0][(*place, channel)]
    np.testing.assert_array_equal(jax.jit(jax.grad(weighted))(x), wanted)


def test_relu_and_its_gradient():
    x = jnp.asarray([-1.0, -0.0, 0.0, 2.0, jnp.nan])[None, None, :, None]
    out, pull = jax.vjp(lambda x: relu(FeatureMap(x)).values, x)
    np.testing.assert_array_equal(out.ravel(), [0, 0, 0, 2, np.nan])
    # As PyTorch's: a NaN, too, hands its gradient on.
    np.testing.assert_array_equal(
        pull(jnp.full_like(out, 3))[0].ravel(), [0, 0, 0, 3, 3]
    )


def test_a_nan_survives_the_maximum():
    for place in range(4):
        x = jnp.zeros(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
        assert np.isnan(max_pool(FeatureMap(x), 2, stride=2).values).all()


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_average_pool_counts_no_padding(kernel, stride, padding):
    x = np.random.default_rng(0).standard_normal((2, 8, 7, 3)).astype(np.float32)
    got = jax.jit(
        lambda x: (
            average_pool(
                FeatureMap(x), kernel, stride=stride, padding=(padding, padding)
            ).values
        )
    )(x)
    got = np.asarray(got)
    out = got.shape[1:3]
    for image in range(2):
        cells = windows_of(x[image], kernel, stride, padding, out)
        for place, values in cells.items():
            np.testing.assert_allclose(
                got[image][place], values.mean(axis=0), rtol=1e-5, atol=1e-6
            )


def map_with_noise_outside():
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.standard_normal((3, 9, 10, 4)), jnp.float32)
    sizes = np.array([[9, 10], [6, 5], [3, 8]], np.int32)
    return FeatureMap(values, jnp.asarray(sizes)), sizes


def assert_equals_each_alone(layer, *, atol=2e-6):
    """The layer gives an image in a canvas what it gives the image alone."""
    layer = jax.jit(layer)
    together, sizes = map_with_noise_outside()
    out = layer(together)
    for row, (height, width) in enumerate(sizes):
        alone = together.values[row : row + 1, :height, :width]
        alone = layer(FeatureMap(alone)).values
        assert out.sizes[row].tolist() == list(alone.shape[1:3])
        inside = np.asarray(out.values)[row, : alone.shape[1], : alone.shape[2]]
        np.testing.assert_allclose(inside, alone[0], rtol=0, atol=atol)
    assert np.isfinite(out.values).all()


@pytest.mark.parametrize("rounding", ("floor", "ceil"))
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_max_pool_of_valid_areas(kernel, stride, padding, rounding):
    assert_equals_each_alone(
        lambda x: max_pool(
            x, kernel, stride=stride, padding=(padding, padding), rounding=rounding
        )
    )


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_average_pool_of_valid_areas(kernel, stride, padding):
    assert_equals_each_alone(
        lambda x: average_pool(x, kernel, stride=stride, padding=(padding, padding))
    )


def test_the_canvas_size_does_not_matter_to_the_mean_and_the_crop():
    together, sizes = map_with_noise_outside()
    means = global_average_pool(together)
    cropped = crop_to(together, 5, 7)
    assert cropped.values.shape == (3, 5, 7, 4)
    for row, (height, width) in enumerate(sizes):
        valid = together.values[row, :height, :width]
        np.testing.assert_allclose(
            means[row], np.mean(valid, axis=(0, 1)), rtol=1e-4, atol=1e-6
        )
        assert cropped.sizes[row].tolist() == [min(height, 5), min(width, 7)]


def test_mask_outside():
    together, sizes = map_with_noise_outside()
    masked = np.array(mask_outside(together, fill=-7.0))
    for row, (height, width) in enumerate(sizes):
        np.testing.assert_array_equal(
            masked[row, :height, :width], together.values[row, :height, :width]
        )
        masked[row, :height, :width] = -7.0
    assert (masked == -7.0).all()


def test_a_map_smaller_than_the_window_is_an_error():
    with pytest.raises(ValueError, match="2x5 is too small for a 3x3 window"):
        max_pool(FeatureMap(jnp.zeros((1, 2, 5, 1))), 3, stride=1)
