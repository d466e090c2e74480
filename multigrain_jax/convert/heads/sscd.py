"""SSCD: GeM with p = 3, a linear layer, unit length.

Pizzi et al., "A self-supervised descriptor for image copy detection", 2022. Layout from
its loading code, not tried on its files: `sscd/models/model.py` of
github.com/facebookresearch/sscd-copy-detection (at
550e40cab3820784278fa34c87965c55e4dc5e0a). Files `*.torchvision.pt` have torchvision's
ResNet as `backbone`, with the linear layer as its `fc`; files `*.classy.pt` have Classy
Vision's (`classy_vision/models/resnext.py` of github.com/facebookresearch/ClassyVision,
at 044ec92735fc3506a91c1f93c2378d011730c03f), and it as `embeddings.1`. Archives
`*.torchscript.pt` have the keys of one or the other.
"""

import re

from multigrain_jax.convert.heads.foreign import (
    ForeignModel,
    HeadOptions,
    Weights,
    linear,
)
from multigrain_jax.errors import InputError
from multigrain_jax.models.heads import DescriptorHead, Projection

ORIGIN = "sscd"
POOLING_EXPONENT = 3.0
_LINEAR, _CLASSY_LINEAR = "fc", "embeddings.1"
_STEM = {"initial_block._module.0": "conv1", "initial_block._module.1": "bn1"}
# Classy Vision's names within a block, and torchvision's; the last batch norm, `bn`,
# follows the last convolution, of which bottlenecks have three and others two.
_BLOCK = {
    "convolutional_block.0": "conv1",
    "convolutional_block.1": "bn1",
    "convolutional_block.3": "conv2",
    "convolutional_block.4": "bn2",
    "convolutional_block.6": "conv3",
}
_THIRD = ".convolutional_block.6."
_NOTES = (
    "SSCD's own size: shorter side 288 pixels, whole photo; for photos of 4:3 that is "
    "test_mode = rect with test_size = 384",
)


def recognises(weights: Weights) -> str | None:
    """How it is known that the file is SSCD's; None if it is not.

    A ResNet with 512 classes, trained by anyone under the name `backbone`, has the
    keys and shapes of a `*.torchvision.pt`: there the file's name decides.
    """
    bare = weights.bare
    if f"{_CLASSY_LINEAR}.weight" in bare:
        is_trunk = any(key.startswith("initial_block.") for key in bare)
        return "by its keys" if is_trunk else None
    is_named = weights.name.lower().startswith(ORIGIN)
    is_within = any(key.endswith("backbone.fc.weight") for key in weights.tensors)
    return "by the file's name" if is_named and is_within else None


def read(weights: Weights, options: HeadOptions) -> ForeignModel:
    """The trunk, and the linear layer as the head.

    Raises:
        InputError: the keys are those of neither kind of file, or a whitening is
            asked for.
    """
    if options != HeadOptions():
        raise InputError(
            f"{weights.name}: options of a whitening were given, and SSCD's weights "
            "have none; leave them out"
        )
    bare = weights.bare
    is_classy = f"{_CLASSY_LINEAR}.weight" in bare
    module = _CLASSY_LINEAR if is_classy else _LINEAR
    if f"{module}.weight" not in bare:
        raise InputError(
            f"{weights.name}: backbone.fc.weight or {_CLASSY_LINEAR}.weight was "
            f"expected in SSCD's weights, found neither among {len(bare)} keys; give "
            "one of its published files, or leave out --head"
        )
    projection = linear(bare, module)
    has_third = any(_THIRD in key for key in bare)
    trunk = {
        _torchvision_key(key, has_third=has_third) if is_classy else key: value
        for key, value in bare.items()
        if not key.startswith(f"{module}.")
    }
    row = Projection(len(projection["bias"]), offset="bias")
    return ForeignModel(
        trunk=trunk,
        pooling_exponent=POOLING_EXPONENT,
        head=DescriptorHead(ORIGIN, (row,), "at_least_epsilon"),
        projections=(projection,),
        renamed=is_classy,
        num_used=2,
        notes=_NOTES,
    )


def _torchvision_key(key: str, *, has_third: bool) -> str:
    """The key that torchvision has for Classy Vision's; others stay as they are."""
    module, _, leaf = key.rpartition(".")
    if module in _STEM:
        return f"{_STEM[module]}.{leaf}"
    match = re.fullmatch(r"blocks\.(\d)\.block\d-(\d+)\.(.+)", module)
    if match is None:
        return key
    stage, block, part = match.groups()
    names = {**_BLOCK, "bn": "bn3" if has_third else "bn2"}
    return f"layer{int(stage) + 1}.{block}.{names.get(part, part)}.{leaf}"
