"""Which torch module is which module here: tables only, one file per family."""

from multigrain_jax.convert.keymaps.keymap import KeyMap
from multigrain_jax.convert.keymaps.nasnet import NASNET_A_MOBILE
from multigrain_jax.convert.keymaps.pnasnet import PNASNET_5_LARGE
from multigrain_jax.convert.keymaps.resnet import (
    RESNET18,
    RESNET34,
    RESNET50,
    RESNET101,
    RESNET152,
    RESNEXT50_32X4D,
    RESNEXT101_32X4D,
    RESNEXT101_32X8D,
    TINY,
    WIDE_RESNET50_2,
    WIDE_RESNET101_2,
)
from multigrain_jax.convert.keymaps.senet import SENET154

__all__ = ["KEYMAPS", "KeyMap"]

# One for every row of `BACKBONES`.
KEYMAPS: dict[str, KeyMap] = {
    "resnet18": RESNET18,
    "resnet34": RESNET34,
    "resnet50": RESNET50,
    "resnet101": RESNET101,
    "resnet152": RESNET152,
    "resnext50_32x4d": RESNEXT50_32X4D,
    "resnext101_32x4d": RESNEXT101_32X4D,
    "resnext101_32x8d": RESNEXT101_32X8D,
    "wide_resnet50_2": WIDE_RESNET50_2,
    "wide_resnet101_2": WIDE_RESNET101_2,
    "senet154": SENET154,
    "pnasnet5large": PNASNET_5_LARGE,
    "nasnetamobile": NASNET_A_MOBILE,
    "tiny": TINY,
}
