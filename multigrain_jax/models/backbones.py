"""The table of backbones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from jax.typing import DTypeLike

from multigrain_jax.errors import InputError
from multigrain_jax.models.layers import FeatureMap, Rng
from multigrain_jax.models.nasnet import NASNET_A_MOBILE, NASNET_A_MOBILE_STEM_WIDTH
from multigrain_jax.models.nasnet_cells import CellNetwork
from multigrain_jax.models.pnasnet import PNASNET_5_LARGE, PNASNET_5_LARGE_STEM_WIDTH
from multigrain_jax.models.resnet import ResNet
from multigrain_jax.models.senet import SENet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)


class MakeTrunk(Protocol):
    """Makes a trunk: images as the network takes them -> features."""

    def __call__(
        self, *, group_size: int, dtype: DTypeLike, rng: Rng
    ) -> Callable[[FeatureMap], FeatureMap]:
        """The trunk, an `nnx.Module`.

        Args:
            group_size: consecutive samples that share batch statistics.
            dtype: compute dtype.
            rng: source of the initial values; `layers.draw` takes from it.
        """
        ...


@dataclass(frozen=True)
class Backbone:
    """One row of the table of backbones.

    Attributes:
        make_trunk: makes the trunk.
        embedding_dim: D, channels of the trunk's output.
        mean: input mean, of RGB values in [0, 1].
        std: input standard deviation.
        dropout_rate: share of the embedding that is dropped before the classifier.
        default_size: the side of the images it was designed for, in pixels.
        smallest_side: smaller images leave nothing for its last layers, in pixels.
        depthwise: whether it has convolutions with one channel per group.
    """

    make_trunk: MakeTrunk
    embedding_dim: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    dropout_rate: float = 0.0
    default_size: int = 224
    smallest_side: int = 1
    depthwise: bool = False


# Blocks of the stages of bottleneck ResNets.
_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_bottlenecks = partial(ResNet, block="bottleneck")

BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(partial(ResNet, block="basic", stages=(2, 2, 2, 2)), 512),
    "resnet34": Backbone(partial(ResNet, block="basic", stages=_50), 512),
    "resnet50": Backbone(partial(_bottlenecks, stages=_50), 2048),
    "resnet101": Backbone(partial(_bottlenecks, stages=_101), 2048),
    "resnet152": Backbone(partial(_bottlenecks, stages=_152), 2048),
    "resnext50_32x4d": Backbone(
        partial(_bottlenecks, stages=_50, groups=32, width_per_group=4), 2048
    ),
    "resnext101_32x4d": Backbone(
        partial(_bottlenecks, stages=_101, groups=32, width_per_group=4), 2048
    ),
    "resnext101_32x8d": Backbone(
        partial(_bottlenecks, stages=_101, groups=32, width_per_group=8), 2048
    ),
    "wide_resnet50_2": Backbone(
        partial(_bottlenecks, stages=_50, width_per_group=128), 2048
    ),
    "wide_resnet101_2": Backbone(
        partial(_bottlenecks, stages=_101, width_per_group=128), 2048
    ),
    "senet154": Backbone(
        partial(SENet, stages=(3, 8, 36, 3)), 2048, dropout_rate=0.2, smallest_side=32
    ),
    "pnasnet5large": Backbone(
        partial(
            CellNetwork, stem_width=PNASNET_5_LARGE_STEM_WIDTH, cells=PNASNET_5_LARGE
        ),
        4320,
        mean=HALVES,
        std=HALVES,
        dropout_rate=0.5,
        default_size=331,
        smallest_side=32,
        depthwise=True,
    ),
    "nasnetamobile": Backbone(
        partial(
            CellNetwork, stem_width=NASNET_A_MOBILE_STEM_WIDTH, cells=NASNET_A_MOBILE
        ),
        1056,
        mean=HALVES,
        std=HALVES,
        dropout_rate=0.5,
        smallest_side=32,
        depthwise=True,
    ),
    # Two blocks of width 8, for tests and rehearsals.
    "tiny": Backbone(partial(ResNet, block="basic", stages=(2,), width=8), 8),
}


def backbone_row(name: str) -> Backbone:
    """The row of a backbone.

    Raises:
        InputError: there is none of this name.
    """
    if name not in BACKBONES:
        raise InputError(
            f"backbone: found {name!r}, expected one of {', '.join(BACKBONES)}"
        )
    return BACKBONES[name]
