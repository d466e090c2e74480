"""Modules of pretrainedmodels' NASNet-A-Mobile and where they are here."""

from multigrain_jax.convert.keymaps import nasnet_family as family
from multigrain_jax.convert.keymaps.keymap import Modules

# In the order of the network, with what their left inputs go through.
_CELLS = (
    ("cell_stem_0", ()),
    ("cell_stem_1", family.REDUCED_LEFT),
    ("cell_0", family.REDUCED_LEFT),
    ("cell_1", family.LEFT),
    ("cell_2", family.LEFT),
    ("cell_3", family.LEFT),
    ("reduction_cell_0", family.LEFT),
    ("cell_6", family.REDUCED_LEFT),
    ("cell_7", family.LEFT),
    ("cell_8", family.LEFT),
    ("cell_9", family.LEFT),
    ("reduction_cell_1", family.LEFT),
    ("cell_12", family.REDUCED_LEFT),
    ("cell_13", family.LEFT),
    ("cell_14", family.LEFT),
    ("cell_15", family.LEFT),
)

_MODULES: Modules = (
    ("conv0.conv", "trunk.stem"),
    ("conv0.bn", "trunk.stem_norm"),
    *(
        (f"{cell}.{torch}", f"trunk.cells.{position}.{here}")
        for position, (cell, left) in enumerate(_CELLS)
        for torch, here in (*family.CELL, *left)
    ),
)

NASNET_A_MOBILE = family.keymap(
    _MODULES,
    has=("conv0.conv.weight", "cell_stem_0.conv_1x1.conv.weight"),
    lacks=("cell_17.conv_1x1.conv.weight",),  # NASNet-A-Large has it
)
