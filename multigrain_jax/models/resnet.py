"""ResNet trunks with torchvision's architecture (stride in the 3x3 convolution).

He et al., "Deep residual learning for image recognition", 2016. With groups: Xie et
al., "Aggregated residual transformations for deep neural networks" (ResNeXt), 2017.
With a larger width per group: Zagoruyko and Komodakis, "Wide residual networks", 2016.
"""

from functools import partial
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    Rng,
    fan_out_normal,
    max_pool,
    relu,
)

BN_EPSILON = 1e-5
BOTTLENECK_EXPANSION = 4
BASE_WIDTH = (
    64  # the width per group that leaves a bottleneck's 3x3s as wide as planned
)

Block = Literal["basic", "bottleneck"]


class ResidualBlock(nnx.Module):
    """relu(branch(x) + shortcut(x)).

    The branch is 3x3-3x3 ("basic") or 1x1-3x3-1x1 ("bottleneck"; its 3x3 may have
    groups, and be wider); the shortcut is a 1x1 convolution where the shape changes,
    else the identity.
    """

    FOLDS: ClassVar = {
        "bn1": ("conv1",),
        "bn2": ("conv2",),
        "bn3": ("conv3",),
        "shortcut_bn": ("shortcut_conv",),
    }

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        block: Block,
        stride: int,
        groups: int,
        width_per_group: int,
        group_size: int,
        dtype: DTypeLike,
        rng: Rng,
    ):
        """Creates the layers; arguments as of `ResNet`."""
        conv = partial(Conv, initializer=fan_out_normal, dtype=dtype, rng=rng)
        norm = partial(BatchNorm, eps=BN_EPSILON, group_size=group_size, dtype=dtype)
        out_channels = width if block == "basic" else width * BOTTLENECK_EXPANSION
        if block == "basic":
            self.conv1 = conv(in_channels, width, 3, stride=stride, padding=1)
            self.bn1 = norm(width)
            self.conv2 = conv(width, width, 3, padding=1)
            self.bn2 = norm(width)
            self.conv3 = self.bn3 = None
        else:
            inner = width * width_per_group // BASE_WIDTH * groups
            self.conv1 = conv(in_channels, inner, 1)
            self.bn1 = norm(inner)
            self.conv2 = conv(inner, inner, 3, stride=stride, padding=1, groups=groups)
            self.bn2 = norm(inner)
            self.conv3 = conv(inner, out_channels, 1)
            self.bn3 = norm(out_channels)
        if stride != 1 or in_channels != out_channels:
            self.shortcut_conv = conv(in_channels, out_channels, 1, stride=stride)
            self.shortcut_bn = norm(out_channels)
        else:
            self.shortcut_conv = self.shortcut_bn = None

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, H / stride, W / stride, out_channels]."""
        branch = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None and self.bn3 is not None:
            branch = self.bn3(self.conv3(relu(branch)))
        if self.shortcut_conv is not None and self.shortcut_bn is not None:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return relu(branch._replace(values=branch.values + x.values))


class ResNet(nnx.Module):
    """A trunk: 7x7 stem, max-pool, stages of residual blocks; output after a ReLU."""

    FOLDS: ClassVar = {"bn1": ("conv1",)}

    def __init__(
        self,
        *,
        block: Block,
        stages: tuple[int, ...],
        width: int = 64,
        groups: int = 1,
        width_per_group: int = BASE_WIDTH,
        group_size: int,
        dtype: DTypeLike = jnp.float32,
        rng: Rng,
    ):
        """Creates the layers.

        Args:
            block: which residual block.
            stages: blocks of each stage; every stage but the first halves the map.
            width: channels of the stem and, doubled at every stage, of the 3x3s.
            groups: channel groups of a bottleneck's 3x3s;
            width_per_group: and the channels of a group where `width` is 64, of which
                wider stages have as many times more.
            group_size: consecutive samples that share batch statistics.
            dtype: compute dtype.
            rng: source of the initial values.
        """
        self.conv1 = Conv(
            3,
            width,
            7,
            stride=2,
            padding=3,
            initializer=fan_out_normal,
            dtype=dtype,
            rng=rng,
        )
        self.bn1 = BatchNorm(width, eps=BN_EPSILON, group_size=group_size, dtype=dtype)
        channels = width
        expansion = 1 if block == "basic" else BOTTLENECK_EXPANSION
        self.stages = nnx.List()
        for number, num_blocks in enumerate(stages):
            stage = nnx.List()
            for position in range(num_blocks):
                stage.append(
                    ResidualBlock(
                        channels,
                        width * 2**number,
                        block=block,
                        stride=2 if number > 0 and position == 0 else 1,
                        groups=groups,
                        width_per_group=width_per_group,
                        group_size=group_size,
                        dtype=dtype,
                        rng=rng,
                    )
                )
                channels = width * 2**number * expansion
            self.stages.append(stage)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Normalised images [B, H, W, 3] -> features."""
        x = max_pool(relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x
