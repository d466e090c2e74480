"""NASNet-A: two cells found by search, as tables.

Zoph et al., "Learning transferable architectures for scalable image recognition",
2018, figure 4; the weights' layout is that of the published mobile network.
"""

from multigrain_jax.models.cell_plans import (
    LEFT,
    RIGHT,
    CellPlan,
    CellSpec,
    average,
    identity,
    maximum,
    separable,
)

NORMAL = CellPlan(
    sums=(
        (separable(5, RIGHT), separable(3, LEFT)),
        (separable(5, LEFT), separable(3, LEFT)),
        (average(RIGHT), identity(LEFT)),
        (average(LEFT), average(LEFT)),
        (separable(3, RIGHT), identity(RIGHT)),
    ),
    outputs=(LEFT, 0, 1, 2, 3, 4),
)

REDUCTION = CellPlan(
    sums=(
        (separable(5, RIGHT), separable(7, LEFT)),
        (maximum(RIGHT), separable(7, LEFT)),
        (average(RIGHT), separable(5, LEFT)),
        (identity(1), average(0)),
        (separable(3, 0), maximum(RIGHT)),
    ),
    outputs=(1, 2, 3, 4),
)


def nasnet_a_cells(width: int, repeats: int) -> tuple[CellSpec, ...]:
    """The cells of a NASNet-A.

    Args:
        width: channels of the first stage's sums, divisible by 4.
        repeats: normal cells of each of the three stages.
    """
    cells = [
        CellSpec(REDUCTION, width // 4, "even"),
        CellSpec(REDUCTION, width // 2, "odd"),
    ]
    for stage in range(3):
        if stage > 0:
            cells.append(CellSpec(REDUCTION, width * 2**stage, "odd"))
        cells += [CellSpec(NORMAL, width * 2**stage, "dense")] * repeats
    return tuple(cells)


NASNET_A_MOBILE_STEM_WIDTH = 32
NASNET_A_MOBILE = nasnet_a_cells(width=44, repeats=4)
