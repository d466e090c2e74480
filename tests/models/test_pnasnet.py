"""PNASNet-5's sequence of cells against what the paper says of its networks."""

import pytest

from multigrain_jax.models.pnasnet import CELL, PNASNET_5_LARGE, pnasnet_5_cells


@pytest.mark.parametrize(
    # "PNASNet-5 (N, F)": N cells a stage, F channels in the first; and two in the stem.
    ("cells", "repeats", "width"),
    [(PNASNET_5_LARGE, 4, 216), (pnasnet_5_cells(54, 2), 3, 54)],
)
def test_the_cells_are_those_of_the_named_network(cells, repeats, width):
    widths = [width // 4, width // 2]
    for stage in range(3):
        widths += [width * 2**stage] * repeats
    assert [cell.width for cell in cells] == widths
    assert all(cell.plan is CELL for cell in cells)


def test_the_first_cell_of_a_stage_halves_the_map():
    halving = {
        n: c.sampling for n, c in enumerate(PNASNET_5_LARGE) if c.sampling != "dense"
    }
    assert halving == {0: "even", 1: "even", 6: "odd", 10: "even"}
