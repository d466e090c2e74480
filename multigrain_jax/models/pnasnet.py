"""PNASNet-5: one cell found by progressive search, as a table.

Liu et al., "Progressive neural architecture search", 2018, figure 1; the weights'
layout is that of the published large network.
"""

from multigrain_jax.models.cell_plans import (
    LEFT,
    RIGHT,
    CellPlan,
    CellSpec,
    Sampling,
    identity,
    maximum,
    separable,
)

CELL = CellPlan(
    sums=(
        (separable(5, LEFT), maximum(LEFT)),
        (separable(7, RIGHT), maximum(RIGHT)),
        (separable(5, RIGHT), separable(3, RIGHT)),
        (separable(3, 2), maximum(RIGHT)),
        (separable(3, LEFT), identity(RIGHT)),
    ),
    outputs=(0, 1, 2, 3, 4),
)

# How the first cell of each stage samples: those of the second and third halve the map.
# Of all that do, only the second stage's starts a pixel later: so the published network
# was trained.
_STAGES: tuple[Sampling, ...] = ("dense", "odd", "even")


def pnasnet_5_cells(width: int, repeats: int) -> tuple[CellSpec, ...]:
    """The cells of a PNASNet-5.

    Args:
        width: channels of the first stage's sums, divisible by 4.
        repeats: dense cells of each of the three stages; the first stage has one more.
    """
    cells = [CellSpec(CELL, width // 4, "even"), CellSpec(CELL, width // 2, "even")]
    for stage, sampling in enumerate(_STAGES):
        stage_width = width * 2**stage
        cells.append(CellSpec(CELL, stage_width, sampling))
        cells += [CellSpec(CELL, stage_width, "dense")] * repeats
    return tuple(cells)


PNASNET_5_LARGE_STEM_WIDTH = 96
PNASNET_5_LARGE = pnasnet_5_cells(width=216, repeats=3)
