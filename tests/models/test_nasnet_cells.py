"""The parts that NASNet and PNASNet share, against the plainest code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multigrain_jax.models.cell_plans import CellSpec
from multigrain_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    average_pool,
    max_pool,
)
from multigrain_jax.models.nasnet import NORMAL, REDUCTION, nasnet_a_cells
from multigrain_jax.models.nasnet_cells import (
    CellNetwork,
    FactorizedReduction,
    Makers,
    add,
    concatenate,
    crop_to_smallest,
    placement,
)
from multigrain_jax.models.pnasnet import pnasnet_5_cells

CENTRES = {
    "dense": lambda side: range(side),
    "even": lambda side: range(0, side, 2),
    "odd": lambda side: range(1, side, 2),
}


def windows(image, kernel, sampling):
    """(row, column, the part of the window inside the image), by loops."""
    height, width = image.shape[:2]
    reach = kernel // 2
    for row, y in enumerate(CENTRES[sampling](height)):
        for column, x in enumerate(CENTRES[sampling](width)):
            part = image[
                max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1
            ]
            yield row, column, part


@pytest.mark.parametrize("shape", [(7, 8), (8, 5)])
@pytest.mark.parametrize("sampling", CENTRES)
@pytest.mark.parametrize(
    ("pool", "plain"), [(max_pool, np.max), (average_pool, np.mean)]
)
def test_pools_are_centred_as_the_sampling_says(pool, plain, sampling, shape):
    image = np.random.default_rng(0).standard_normal((*shape, 3)).astype(np.float32)
    stride, padding = placement(3, sampling)
    found = pool(FeatureMap(image[None]), 3, stride=stride, padding=padding).values[0]
    expected_shape = tuple(len(CENTRES[sampling](side)) for side in shape)
    assert found.shape == (*expected_shape, 3)
    for row, column, part in windows(image, 3, sampling):
        np.testing.assert_allclose(
            found[row, column], plain(part, axis=(0, 1)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("sampling", CENTRES)
def test_convolutions_are_centred_as_the_sampling_says(kernel, sampling):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((9, 8, 2)).astype(np.float32)
    stride, padding = placement(kernel, sampling)
    conv = Conv(2, 2, kernel, stride=stride, padding=padding, groups=2, rng=rng)
    conv.kernel[...] = jnp.ones((kernel, kernel, 1, 2))
    found = conv(FeatureMap(image[None])).values[0]
    for row, column, part in windows(image, kernel, sampling):
        np.testing.assert_allclose(
            found[row, column], part.sum(axis=(0, 1)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("side", [7, 8, 31])
def test_windows_that_start_one_pixel_later_stay_inside_the_map(side):
    """XLA's own negative padding read memory past the end at odd sides."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, side, side, 8)).astype(np.float32)
    later = ((-1, 1), (-1, 1))
    conv = Conv(8, 2, 1, stride=2, padding=later, rng=rng)
    found = jax.jit(lambda x: conv(FeatureMap(x)).values)(image)
    padded = np.pad(image, ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = padded[:, 1::2, 1::2] @ conv.kernel[...][0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [6, 7])
def test_factorized_reduction_reads_even_and_odd_pixels(side):
    rng = np.random.default_rng(0)
    make = Makers(
        conv=lambda *args, **kwargs: Conv(*args, **kwargs, rng=rng),
        norm=lambda channels: BatchNorm(channels, eps=0.0, group_size=4),
    )
    module = FactorizedReduction(3, 4, make=make)
    module.eval()
    image = rng.standard_normal((side, side, 3)).astype(np.float32)
    # In a larger canvas, what lies past the image must count as zero.
    canvas = np.full((1, 9, 9, 3), 5, np.float32)
    canvas[0, :side, :side] = image
    sizes = jnp.full((1, 2), side, jnp.int32)
    out = module(FeatureMap(canvas, sizes))
    half = (side + 1) // 2
    assert out.sizes.tolist() == [[half, half]]
    padded = np.zeros((side + 2, side + 2, 3), np.float32)
    padded[:side, :side] = np.maximum(image, 0)
    even = padded[::2, ::2][:half, :half] @ module.even.kernel[...][0, 0]
    odd = padded[1::2, 1::2][:half, :half] @ module.odd.kernel[...][0, 0]
    np.testing.assert_allclose(
        out.values[0, :half, :half],
        np.concatenate([even, odd], axis=-1),
        rtol=1e-5,
        atol=1e-6,
    )


def test_sums_and_concatenations_keep_the_top_left():
    rng = np.random.default_rng(0)
    first = rng.standard_normal((2, 4, 6, 1)).astype(np.float32)
    second = rng.standard_normal((2, 5, 5, 1)).astype(np.float32)
    maps = [FeatureMap(first), FeatureMap(second)]
    total = add(*maps).values
    np.testing.assert_array_equal(total, first[:, :, :5] + second[:, :4])
    joined = concatenate(maps).values
    np.testing.assert_array_equal(joined[..., 1:], second[:, :4])


def test_every_image_of_a_canvas_is_cropped_to_its_own_smallest_size():
    sizes = (
        jnp.array([[3, 6], [4, 2]], jnp.int32),
        jnp.array([[4, 5], [3, 3]], jnp.int32),
    )
    maps = [
        FeatureMap(jnp.zeros((2, 4, 6, 1)), sizes[0]),
        FeatureMap(jnp.zeros((2, 5, 5, 1)), sizes[1]),
    ]
    for cropped in crop_to_smallest(maps):
        assert cropped.values.shape == (2, 4, 5, 1)
        assert cropped.sizes.tolist() == [[3, 5], [3, 2]]


@pytest.mark.parametrize(
    ("cells", "channels"), [(nasnet_a_cells(8, 1), 192), (pnasnet_5_cells(16, 1), 320)]
)
def test_bfloat16_runs_under_strict_promotion(cells, channels):
    trunk = CellNetwork(
        stem_width=8,
        cells=cells,
        group_size=4,
        dtype=jnp.bfloat16,
        rng=np.random.default_rng(0),
    )
    trunk.eval()
    out = jax.eval_shape(trunk, FeatureMap(jnp.zeros((4, 65, 65, 3), jnp.float32)))
    # 65 -> stem 32 -> 16 -> 8 -> 4 -> 2
    assert out.values.shape == (4, 2, 2, channels)
    assert out.values.dtype == jnp.bfloat16


# Both kinds of cell and every transition between them.
SMALL_NASNET = (
    CellSpec(REDUCTION, 4, "even"),
    CellSpec(REDUCTION, 8, "odd"),
    CellSpec(NORMAL, 16, "dense"),
    CellSpec(NORMAL, 16, "dense"),
)


# Odd sizes at every halving: branches of a cell then differ by a row or column.
@pytest.mark.slow
@pytest.mark.parametrize("cells", [SMALL_NASNET, pnasnet_5_cells(16, 0)])
def test_canvas_of_a_small_network_is_exact(cells, assert_canvas_is_exact):
    trunk = CellNetwork(
        stem_width=8, cells=cells, group_size=4, rng=np.random.default_rng(0)
    )
    assert_canvas_is_exact(trunk, [(33, 47), (41, 35)])


def test_networks_are_equal_in_structure_when_made_twice():
    """Else a structure could not be compared, or used as a static argument."""
    graphdefs = [
        nnx.graphdef(
            CellNetwork(
                stem_width=8,
                cells=nasnet_a_cells(8, 1),
                group_size=4,
                rng=np.random.default_rng(seed),
            )
        )
        for seed in range(2)
    ]
    assert graphdefs[0] == graphdefs[1]
    assert hash(graphdefs[0]) == hash(graphdefs[1])
