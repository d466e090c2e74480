"""What the parts of SENets promise."""

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.senet import SENet, SqueezeExcite


def test_small_trunk_canvas_is_exact(assert_canvas_is_exact):
    trunk = SENet(
        stages=(1, 1, 1, 1),
        width=16,
        groups=4,
        group_size=4,
        rng=np.random.default_rng(0),
    )
    assert_canvas_is_exact(trunk, [(33, 47), (41, 35)])


def test_squeeze_excite_is_the_plain_formula_over_valid_positions():
    rng = np.random.default_rng(0)
    module = SqueezeExcite(32, dtype=jnp.float32, rng=rng)
    x = rng.standard_normal((2, 4, 5, 32)).astype(np.float32)
    sizes = np.array([[3, 5], [4, 2]], np.int32)
    found = module(FeatureMap(jnp.asarray(x), jnp.asarray(sizes)))
    for image, (height, width), row in zip(x, sizes, found.values, strict=True):
        mean = image[:height, :width].mean(axis=(0, 1))
        squeezed = mean @ module.squeeze.kernel[...][0, 0] + module.squeeze.bias[...]
        hidden = np.maximum(squeezed, 0)
        expanded = hidden @ module.expand.kernel[...][0, 0] + module.expand.bias[...]
        gates = 1 / (1 + np.exp(-expanded))
        np.testing.assert_allclose(row, image * gates, rtol=1e-5, atol=1e-6)


def test_initial_values_are_uniform_within_the_fan_in_bound():
    trunk = SENet(
        stages=(1,), width=64, groups=64, group_size=4, rng=np.random.default_rng(0)
    )
    block = trunk.stages[0][0]
    layers = ((block.conv2, 9 * 2), (block.squeeze_excite.squeeze, 256))
    for conv, fan_in in layers:
        bound = 1 / np.sqrt(fan_in)
        assert 0.95 * bound < np.abs(conv.kernel[...]).max() <= bound
    assert 0 < np.abs(block.squeeze_excite.squeeze.bias[...]).max() <= 1 / 16


def test_bfloat16_runs_under_strict_promotion():
    trunk = SENet(
        stages=(1, 1),
        width=16,
        groups=4,
        group_size=4,
        dtype=jnp.bfloat16,
        rng=np.random.default_rng(0),
    )
    trunk.eval()
    out = jax.eval_shape(trunk, FeatureMap(jnp.zeros((4, 33, 33, 3), jnp.float32)))
    assert out.values.shape == (4, 4, 4, 128)
    assert out.values.dtype == jnp.bfloat16
