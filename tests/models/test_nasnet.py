"""NASNet-A's sequence of cells against what the paper says of its networks."""

import pytest

from multigrain_jax.models.nasnet import (
    NASNET_A_MOBILE,
    NORMAL,
    REDUCTION,
    nasnet_a_cells,
)


@pytest.mark.parametrize(
    # "NASNet-A (N @ F)": N normal cells a stage, F channels before the classifier.
    ("cells", "repeats", "channels"),
    [(NASNET_A_MOBILE, 4, 1056), (nasnet_a_cells(168, 6), 6, 4032)],
)
def test_the_cells_are_those_of_the_named_network(cells, repeats, channels):
    stage = [NORMAL] * repeats
    plans = [REDUCTION, REDUCTION, *stage, REDUCTION, *stage, REDUCTION, *stage]
    assert [cell.plan for cell in cells] == plans
    assert cells[-1].width * len(NORMAL.outputs) == channels


def test_the_width_doubles_from_stage_to_stage():
    widths = [cell.width for cell in nasnet_a_cells(64, 2)]
    assert widths == [16, 32, 64, 64, 128, 128, 128, 256, 256, 256]


def test_reductions_sample_and_normal_cells_do_not():
    for cell in NASNET_A_MOBILE:
        assert (cell.sampling == "dense") == (cell.plan is NORMAL)
