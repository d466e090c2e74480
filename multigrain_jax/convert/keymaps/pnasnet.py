"""Modules of pretrainedmodels' PNASNet-5-Large and where they are here."""

from multigrain_jax.convert.keymaps import nasnet_family as family
from multigrain_jax.convert.keymaps.keymap import Modules

# In the order of the network.
_CELLS = ("cell_stem_0", "cell_stem_1", *(f"cell_{number}" for number in range(12)))

# Those that follow a cell that halves the map; the first cell takes the stem as it is.
_REDUCED = ("cell_stem_1", "cell_0", "cell_5", "cell_9")

_REDUCED_LEFT = tuple(
    (f"conv_prev_1x1.{torch}", here) for torch, here in family.REDUCED_LEFT
)

_MODULES: Modules = (
    ("conv_0.conv", "trunk.stem"),
    ("conv_0.bn", "trunk.stem_norm"),
    *(
        (f"{cell}.{torch}", f"trunk.cells.{position}.{here}")
        for position, cell in enumerate(_CELLS)
        for torch, here in (
            *family.CELL,
            *(_REDUCED_LEFT if cell in _REDUCED else family.LEFT),
        )
    ),
)

PNASNET_5_LARGE = family.keymap(
    _MODULES,
    has=("conv_0.conv.weight", "cell_4.conv_prev_1x1.conv.weight"),
    zoo_notes=(
        "timm's pnasnet5large has the same keys and pads otherwise: its outputs are "
        "equal at 331 x 331 pixels, and not at all sizes",
    ),
)
