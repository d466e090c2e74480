"""SENet-154 against the original, and what its parts promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.models.senet import SENet, SqueezeExcite

SIZES = ("224x224", "193x257")


def taps(trunk, x):
    x = trunk.stem(x)
    maps = {"features.layer0": x}
    for number, stage in enumerate(trunk.stages, start=1):
        for position, block in enumerate(stage):
            x = block(x)
            maps[f"features.layer{number}.{position}"] = x
        maps[f"features.layer{number}"] = x
    return {name: tap for name, tap in maps.items() if name in TAPS}, x


TAPS = (
    "features.layer0",
    "features.layer1.0",
    "features.layer1",
    "features.layer2.0",
    "features.layer2",
    "features.layer3",
    "features.layer4",
)


@pytest.fixture(scope="module")
def golden(make_golden_backbone):
    return make_golden_backbone("senet154", taps)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_outputs_equal_the_original(golden, size):
    if size == "224x224":
        golden.assert_taps(size, TAPS)
    heads, _ = golden.run(size)
    for exponent, output in heads.items():
        golden.assert_outputs(output, f"{size}/{exponent}")


@pytest.mark.slow
def test_one_canvas_gives_the_original_outputs(golden):
    golden.assert_canvas(SIZES)


@pytest.mark.slow
def test_every_key_is_used_and_the_count_is_right(golden):
    golden.assert_complete()
    assert set(golden.report.ignored.values()) == {157}


@pytest.mark.slow
def test_zoo_file_gives_the_same_variables(golden, golden_manifest):
    manifest = golden_manifest("plain_cadene_senet154")
    golden.assert_zoo_file(manifest, prefix="features.")


@pytest.mark.slow
def test_joint_step_gives_every_parameter_a_finite_gradient(assert_joint_step_trains):
    assert_joint_step_trains("senet154")


def test_small_trunk_canvas_is_exact(assert_canvas_is_exact):
    trunk = SENet(
        stages=(1, 1, 1, 1),
        width=16,
        groups=4,
        group_size=4,
        rng=np.random.default_rng(0),
    )
    assert_canvas_is_exact(trunk, [(33, 47), (41, 35), (50, 64)])


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


def test_row_of_the_table():
    row = BACKBONES["senet154"]
    assert (row.embedding_dim, row.dropout_rate) == (2048, 0.2)
    assert row.mean == (0.485, 0.456, 0.406)
