"""Modules of torchvision's ResNets and where they are here."""

from multigrain_jax.convert.keymaps.keymap import KeyMap, Modules

_MODULES: Modules = (
    ("conv1", "trunk.conv1"),
    ("bn1", "trunk.bn1"),
    *(
        (
            f"layer{stage + 1}.{{block}}.{torch}",
            f"trunk.stages.{stage}.{{block}}.{here}",
        )
        for stage in range(4)
        for torch, here in (
            ("conv{k}", "conv{k}"),
            ("bn{k}", "bn{k}"),
            ("downsample.0", "shortcut_conv"),
            ("downsample.1", "shortcut_bn"),
        )
    ),
)


def _resnet(*, last: str, beyond: str) -> KeyMap:
    """A ResNet whose files have the convolution `last` and not the one `beyond`."""
    return KeyMap(
        modules=_MODULES,
        prefix="features.",
        zoo_classifier="fc",
        has=("conv1.weight", f"{last}.weight"),
        lacks=(f"{beyond}.weight",),
    )


RESNET18 = _resnet(last="layer3.1.conv2", beyond="layer3.2.conv2")
RESNET50 = _resnet(last="layer3.5.conv3", beyond="layer3.6.conv3")
RESNET101 = _resnet(last="layer3.22.conv3", beyond="layer3.23.conv3")
RESNET152 = _resnet(last="layer3.35.conv3", beyond="layer3.36.conv3")
TINY = _resnet(last="layer1.1.conv2", beyond="layer2.0.conv2")
