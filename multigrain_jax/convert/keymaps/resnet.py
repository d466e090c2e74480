"""Modules of torchvision's ResNets and where they are here."""

from functools import partial

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


def _resnet(
    *, last: str, beyond: str | tuple[str, ...], inner: tuple[int, int] | None = None
) -> KeyMap:
    """A ResNet whose files have the convolution `last` and not those `beyond`.

    Args:
        last: the last but one stage's last, mostly.
        beyond: one or several that others of the family have.
        inner: channels of the first block's 3x3, out and in, which tell ResNeXts and
            wide ResNets from the plain ones.
    """
    has = ("conv1.weight", f"{last}.weight")
    without = (beyond,) if isinstance(beyond, str) else beyond
    return KeyMap(
        modules=_MODULES,
        prefix="features.",
        zoo_classifier="fc",
        has=has if inner is None else (*has, "layer1.0.conv2.weight"),
        lacks=tuple(f"{name}.weight" for name in without),
        shape=None if inner is None else (*inner, 3, 3),
        caveat="anti-aliased variants have the same keys",
    )


_50 = partial(_resnet, last="layer3.5.conv3", beyond="layer3.6.conv3")
_101 = partial(_resnet, last="layer3.22.conv3", beyond="layer3.23.conv3")

RESNET18 = _resnet(last="layer3.1.conv2", beyond="layer3.2.conv2")
RESNET34 = _resnet(last="layer3.5.conv2", beyond=("layer3.6.conv2", "layer1.0.conv3"))
RESNET50, RESNET101 = _50(inner=(64, 64)), _101(inner=(64, 64))
RESNET152 = _resnet(last="layer3.35.conv3", beyond="layer3.36.conv3")
RESNEXT50_32X4D, RESNEXT101_32X4D = _50(inner=(128, 4)), _101(inner=(128, 4))
RESNEXT101_32X8D = _101(inner=(256, 8))
WIDE_RESNET50_2, WIDE_RESNET101_2 = _50(inner=(128, 128)), _101(inner=(128, 128))
TINY = _resnet(last="layer1.1.conv2", beyond="layer2.0.conv2")
