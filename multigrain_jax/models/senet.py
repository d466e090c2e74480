"""SENet trunks: grouped bottleneck blocks that weigh their channels.

Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018; SENet-154 of its appendix.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    Rng,
    global_average_pool,
    max_pool,
    relu,
)

BN_EPSILON = 1e-5
EXPANSION = 4
SQUEEZE_REDUCTION = 16


class SqueezeExcite(nnx.Module):
    """x · sigmoid(expand(relu(squeeze(mean over positions of x))))."""

    def __init__(self, channels: int, *, dtype: DTypeLike, rng: Rng):
        """Creates the two 1x1 convolutions, with biases."""
        conv = partial(Conv, kernel_size=1, use_bias=True, dtype=dtype, rng=rng)
        self.squeeze = conv(channels, channels // SQUEEZE_REDUCTION)
        self.expand = conv(channels // SQUEEZE_REDUCTION, channels)

    def gates(self, x: FeatureMap) -> jax.Array:
        """The factor of each channel, [B, 1, 1, C] in (0, 1)."""
        mean = FeatureMap(global_average_pool(x)[:, None, None, :])
        return jax.nn.sigmoid(self.expand(relu(self.squeeze(mean))).values)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """The weighed map."""
        return x._replace(values=x.values * self.gates(x))


class SqueezeExciteBlock(nnx.Module):
    """relu(squeeze_excite(branch(x)) + shortcut(x)), branch 1x1, grouped 3x3, 1x1.

    The shortcut is a convolution where the shape changes: 1x1 without stride, 3x3
    with; else the identity.
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
        stride: int,
        groups: int,
        group_size: int,
        dtype: DTypeLike,
        rng: Rng,
    ):
        """Creates the layers.

        Args:
            in_channels: channels of the input.
            width: a quarter of the channels of the output.
            stride: of the 3x3.
            groups: channel groups of the 3x3.
            group_size: consecutive samples that share batch statistics.
            dtype: compute dtype.
            rng: source of the initial values.
        """
        conv = partial(Conv, dtype=dtype, rng=rng)
        norm = partial(BatchNorm, eps=BN_EPSILON, group_size=group_size, dtype=dtype)
        out_channels = width * EXPANSION
        self.conv1 = conv(in_channels, width * 2, 1)
        self.bn1 = norm(width * 2)
        self.conv2 = conv(
            width * 2, out_channels, 3, stride=stride, padding=1, groups=groups
        )
        self.bn2 = norm(out_channels)
        self.conv3 = conv(out_channels, out_channels, 1)
        self.bn3 = norm(out_channels)
        self.squeeze_excite = SqueezeExcite(out_channels, dtype=dtype, rng=rng)
        if stride != 1:
            self.shortcut_conv = conv(
                in_channels, out_channels, 3, stride=stride, padding=1
            )
        elif in_channels != out_channels:
            self.shortcut_conv = conv(in_channels, out_channels, 1)
        else:
            self.shortcut_conv = None
        has_shortcut = self.shortcut_conv is not None
        self.shortcut_bn = norm(out_channels) if has_shortcut else None

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, ceil(H / stride), …, 4 width]."""
        branch = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        branch = self.squeeze_excite(self.bn3(self.conv3(branch)))
        if self.shortcut_conv is not None and self.shortcut_bn is not None:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return relu(branch._replace(values=branch.values + x.values))


class SENet(nnx.Module):
    """A trunk: three 3x3 convolutions, max-pool, stages; output after a ReLU."""

    FOLDS: ClassVar = {"stem_norms": ("stem_convs",)}

    def __init__(
        self,
        *,
        stages: tuple[int, ...],
        width: int = 64,
        groups: int = 64,
        group_size: int,
        dtype: DTypeLike = jnp.float32,
        rng: Rng,
    ):
        """Creates the layers.

        Args:
            stages: blocks of each stage; every stage but the first halves the map.
            width: a quarter of the first stage's channels, doubled at every stage.
            groups: channel groups of the blocks' 3x3s.
            group_size: consecutive samples that share batch statistics.
            dtype: compute dtype.
            rng: source of the initial values.
        """
        self.stem_convs = nnx.List()
        self.stem_norms = nnx.List()
        channels = 3
        for out_channels, stride in ((width, 2), (width, 1), (2 * width, 1)):
            self.stem_convs.append(
                Conv(
                    channels,
                    out_channels,
                    3,
                    stride=stride,
                    padding=1,
                    dtype=dtype,
                    rng=rng,
                )
            )
            self.stem_norms.append(
                BatchNorm(
                    out_channels, eps=BN_EPSILON, group_size=group_size, dtype=dtype
                )
            )
            channels = out_channels
        self.stages = nnx.List()
        for number, num_blocks in enumerate(stages):
            stage = nnx.List()
            for position in range(num_blocks):
                stage.append(
                    SqueezeExciteBlock(
                        channels,
                        width * 2**number,
                        stride=2 if number > 0 and position == 0 else 1,
                        groups=groups,
                        group_size=group_size,
                        dtype=dtype,
                        rng=rng,
                    )
                )
                channels = width * 2**number * EXPANSION
            self.stages.append(stage)

    def stem(self, x: FeatureMap) -> FeatureMap:
        """Normalised images [B, H, W, 3] -> the first stage's input."""
        for conv, norm in zip(self.stem_convs, self.stem_norms, strict=True):
            x = relu(norm(conv(x)))
        # The last window may be incomplete, as in the network the weights come from.
        return max_pool(x, 3, stride=2, rounding="ceil")

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Normalised images [B, H, W, 3] -> features."""
        x = self.stem(x)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x
