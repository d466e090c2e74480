"""PNASNet-5-Large against the original."""

import numpy as np
import pytest

from multigrain_jax.models.layers import relu
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.models.nasnet_cells import CellNetwork
from multigrain_jax.models.pnasnet import pnasnet_5_cells

SIZES = ("224x224", "193x257", "201x249")
PREFIX = "features.0.base_net."
STAGES = (
    "conv_0",
    "cell_stem_0",
    "cell_stem_1",
    *(f"cell_{number}" for number in range(12)),
)
TAPS = (*(PREFIX + name for name in STAGES), "features")


def taps(trunk, x):
    maps = trunk.stages(x)
    features = relu(maps[-1])
    return dict(zip(TAPS, [*maps, features], strict=True)), features


@pytest.fixture(scope="module")
def golden(make_golden_backbone):
    return make_golden_backbone("pnasnet5large", taps)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_outputs_equal_the_original(golden, size):
    if size != "193x257":
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
    assert sorted(golden.report.ignored.values()) == [2, 201]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["plain_cadene_pnasnet5large", "plain_cadene_pnasnet5large_1001"]
)
def test_zoo_file_gives_the_same_variables(golden, golden_manifest, name):
    golden.assert_zoo_file(golden_manifest(name), prefix=PREFIX)


@pytest.mark.slow
def test_joint_step_gives_every_parameter_a_finite_gradient(assert_joint_step_trains):
    assert_joint_step_trains("pnasnet5large")


# Odd sizes at every halving: branches of a cell then differ by a row or column.
@pytest.mark.slow
def test_small_trunk_canvas_is_exact(assert_canvas_is_exact):
    trunk = CellNetwork(
        stem_width=8,
        cells=pnasnet_5_cells(width=16, repeats=1),
        group_size=4,
        rng=np.random.default_rng(0),
    )
    assert_canvas_is_exact(trunk, [(33, 47), (41, 35), (50, 64)])


def test_row_of_the_table():
    row = BACKBONES["pnasnet5large"]
    assert (row.embedding_dim, row.dropout_rate) == (4320, 0.5)
    assert row.mean == row.std == (0.5, 0.5, 0.5)
