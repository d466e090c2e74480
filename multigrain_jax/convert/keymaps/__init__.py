"""Which torch module is which module here: tables only, one file per family."""

from multigrain_jax.convert.keymaps.keymap import KeyMap
from multigrain_jax.convert.keymaps.nasnet import NASNET_A_MOBILE
from multigrain_jax.convert.keymaps.pnasnet import PNASNET_5_LARGE
from multigrain_jax.convert.keymaps.resnet import (
    RESNET18,
    RESNET50,
    RESNET101,
    RESNET152,
    TINY,
)
from multigrain_jax.convert.keymaps.senet import SENET154

__all__ = ["KEYMAPS", "KeyMap"]

# One for every row of `BACKBONES`.
KEYMAPS: dict[str, KeyMap] = {
    "resnet18": RESNET18,
    "resnet50": RESNET50,
    "resnet101": RESNET101,
    "resnet152": RESNET152,
    "senet154": SENET154,
    "pnasnet5large": PNASNET_5_LARGE,
    "nasnetamobile": NASNET_A_MOBILE,
    "tiny": TINY,
}
