"""State dicts as the packages of others have them, of the same weights."""

import numpy as np

from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.convert.state_dict import export_state_dict
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import Variables

ORIGINAL = "original"
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_OF_BOTH = (*_RESNETS, "resnext50_32x4d", "resnext101_32x8d")
_OF_BOTH += ("wide_resnet50_2", "wide_resnet101_2")
# package -> backbone -> its name there; the keys are those of its file in the zoo.
PACKAGES: dict[str, dict[str, str]] = {
    "torchvision": {name: name for name in _OF_BOTH},
    "timm": {
        **{name: name for name in (*_OF_BOTH, "resnext101_32x4d", "pnasnet5large")},
        "senet154": "legacy_senet154",
    },
}
LAYOUTS = (ORIGINAL, *PACKAGES)
_EXPONENT = "pool.p"
_CLASSIFIER = "classifier."


def name_in_layout(backbone: str, layout: str) -> str:
    """What a package calls a backbone.

    Raises:
        InputError: it has none of this kind, or the layout is none of `LAYOUTS`.
    """
    if layout not in LAYOUTS:
        raise InputError(
            f"layout: found {layout!r}, expected one of {', '.join(LAYOUTS)}"
        )
    names = PACKAGES.get(layout, {backbone: backbone})
    if backbone not in names:
        raise InputError(
            f"layout: {layout} has no {backbone}, expected one of {', '.join(names)}; "
            f"the layout {ORIGINAL} takes every backbone"
        )
    return names[backbone]


def state_dict_in_layout(
    variables: Variables, *, backbone: str, layout: str
) -> dict[str, np.ndarray]:
    """The state dict that the original or a package would have for these variables.

    That of a package is without the pooling exponent: its networks average.

    Args:
        variables: the model's arrays.
        backbone: a key of `BACKBONES`.
        layout: one of `LAYOUTS`.

    Raises:
        InputError: a backbone that the package has not, or what no such file can hold:
            another network's descriptor head, or a whitening in a package's.
    """
    if variables.head:
        raise InputError(
            "layout: another network's descriptor head was found in the checkpoint, "
            f"for which neither {' nor '.join(LAYOUTS)} has a place; keep the file "
            "that it was converted from"
        )
    name_in_layout(backbone, layout)
    state_dict = export_state_dict(variables, backbone=backbone)
    if layout == ORIGINAL:
        return state_dict
    if variables.whitening:
        raise InputError(
            f"layout: a whitening was found in the checkpoint, for which {layout} has "
            f"no place; export the checkpoint that it was made from, or as {ORIGINAL}"
        )
    keymap = KEYMAPS[backbone]
    return {
        _zoo_key(key, keymap.prefix, keymap.zoo_classifier): value
        for key, value in state_dict.items()
        if key != _EXPONENT
    }


def _zoo_key(key: str, prefix: str, classifier: str) -> str:
    if key.startswith(_CLASSIFIER):
        return f"{classifier}.{key.removeprefix(_CLASSIFIER)}"
    return key.removeprefix(prefix)
