"""Which torch module is which module here: tables only, one file per family."""

from types import ModuleType

from multigrain_jax.convert.keymaps import nasnet, pnasnet, resnet, senet

KEYMAPS: dict[str, ModuleType] = {
    "resnet18": resnet,
    "resnet50": resnet,
    "resnet101": resnet,
    "resnet152": resnet,
    "senet154": senet,
    "pnasnet5large": pnasnet,
    "nasnetamobile": nasnet,
}
