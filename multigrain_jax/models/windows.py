"""Maps of images in one canvas, and what slides a window over them without parameters.

A spatial layer maps a `FeatureMap` to a `FeatureMap`. When the map states the valid
size of each image (top-left aligned in a larger canvas), the layer sees zeros outside
the valid area, just as the image alone would see its zero padding, and carries the
sizes on by its own arithmetic: an image in a canvas gives what it gives alone.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from multigrain_jax.ops.dtypes import at_least_float32

Padding = int | tuple[tuple[int, int], tuple[int, int]]
Rounding = Literal["floor", "ceil"]
Size = TypeVar("Size", int, jax.Array)


class FeatureMap(NamedTuple):
    """A batch of feature maps in one canvas.

    Attributes:
        values: [B, H, W, C].
        sizes: int32 [B, 2], the valid height and width of each map, top-left aligned;
            None when the whole canvas is valid. Values outside are arbitrary.
    """

    values: jax.Array
    sizes: jax.Array | None = None


def parameter_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype of parameters and statistics for a compute dtype: float32 or more."""
    return at_least_float32(dtype)


def relu(features: FeatureMap) -> FeatureMap:
    """max(values, 0), sizes unchanged; its gradient at 0 is 0."""
    return features._replace(values=_relu(features.values))


@jax.custom_jvp
def _relu(values: jax.Array) -> jax.Array:
    return jnp.maximum(values, 0)


@_relu.defjvp
def _relu_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # Asked of the output, which the next layer keeps anyway: asked of the input, as by
    # jax.nn.relu, both maps are written and kept until the backward pass. Not `> 0`,
    # which XLA turns back into that question to the input.
    out = _stored(_relu(*primals))
    (tangent,) = tangents
    return out, jnp.where(out != 0, tangent, jnp.zeros_like(tangent))


def _stored(values: jax.Array) -> jax.Array:
    """The values; a CPU is to read them again rather than to compute them anew.

    The gradient of a convolution's weights copies its input into another order, and XLA
    computes batch norm and ReLU once more within that copy. On a CPU that costs more
    than it saves: up to a third of a ResNet-50's step. A GPU's program has no such
    copies. Needs `runtime.CPU_NETWORK`: else XLA removes the barrier too early.
    """
    return lax.platform_dependent(
        values, cpu=lax.optimization_barrier, default=lambda same: same
    )


def mask_outside(features: FeatureMap, *, fill: float = 0.0) -> jax.Array:
    """The values [B, H, W, C] with `fill` outside the valid area."""
    if features.sizes is None:
        return features.values
    _, height, width, _ = features.values.shape
    rows = jnp.arange(height, dtype=jnp.int32)[None] < features.sizes[:, :1]
    columns = jnp.arange(width, dtype=jnp.int32)[None] < features.sizes[:, 1:]
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    return jnp.where(inside, features.values, jnp.asarray(fill, features.values.dtype))


def output_size(
    size: Size,
    *,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    rounding: Rounding = "floor",
) -> Size:
    """How many windows fit along one side.

    floor: floor((size + before + after - kernel) / stride) + 1. ceil: the same rounded
    up, but the last window still starts inside the map or the leading padding.

    Args:
        size: the side, an int or an integer array.
        kernel: the window's side.
        stride: the step between windows.
        padding: cells added before and after.
        rounding: what to do with an incomplete last window.
    """
    before, after = padding
    beyond = before + after - kernel
    if rounding == "floor" and stride == 1:
        # Canvas sizes pass through every layer, and XLA copies their whole chain into
        # each reader: dividing by 1 made up to three quarters of the compile time.
        # Tracing takes its time too, for each operation, and most layers keep sizes.
        return size if beyond == -1 else size + (beyond + 1)
    span = size + beyond
    if rounding == "floor":
        return span // stride + 1
    count = -(-span // stride) + 1
    starting_inside = -(-(size + before) // stride)
    if isinstance(count, int):
        return min(count, starting_inside)
    return jnp.minimum(count, starting_inside)


class Window(NamedTuple):
    """The geometry of a layer that slides a window over the map."""

    kernel: tuple[int, int]
    stride: int
    padding: tuple[tuple[int, int], tuple[int, int]]
    rounding: Rounding = "floor"

    def out(self, size: Size, axis: int) -> Size:
        """The windows along one axis (0: height, 1: width) of a side of `size`."""
        return output_size(
            size,
            kernel=self.kernel[axis],
            stride=self.stride,
            padding=self.padding[axis],
            rounding=self.rounding,
        )

    def out_shape(self, values: jax.Array) -> tuple[int, int]:
        """Height and width of the output canvas; a ValueError when there is none."""
        _, height, width, _ = values.shape
        shape = self.out(height, 0), self.out(width, 1)
        if min(shape) < 1:
            raise ValueError(
                f"A map of {height}x{width} is too small for a "
                f"{self.kernel[0]}x{self.kernel[1]} window with padding "
                f"{self.padding}: give larger images."
            )
        return shape

    def out_sizes(self, sizes: jax.Array | None) -> jax.Array | None:
        """The valid sizes [B, 2] of the output."""
        if sizes is None:
            return None
        if len(set(self.kernel)) == len(set(self.padding)) == 1:
            return self.out(sizes, 0)
        return jnp.stack([self.out(sizes[:, 0], 0), self.out(sizes[:, 1], 1)], axis=1)

    @property
    def reads_beyond(self) -> bool:
        """Whether the window of a valid output can reach past the valid area."""
        return self.rounding == "ceil" or max(after for _, after in self.padding) > 0

    def slices(self, values: jax.Array, fill: float) -> Iterator[jax.Array]:
        """The map seen at each place of the window, in raster order: [B, H', W', C]."""
        out = self.out_shape(values)
        ends = [
            (count - 1) * self.stride + side
            for count, side in zip(out, self.kernel, strict=True)
        ]
        config = [(0, 0, 0)]
        for axis in range(2):
            before = self.padding[axis][0]
            # Exactly as much as the windows read: in ceil mode more than the padding.
            config.append((before, ends[axis] - before - values.shape[1 + axis], 0))
        config.append((0, 0, 0))
        padded = lax.pad(values, jnp.asarray(fill, values.dtype), config)
        batch, _, _, channels = values.shape
        steps = (1, self.stride, self.stride, 1)
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                last = (
                    batch,
                    row + (out[0] - 1) * self.stride + 1,
                    column + (out[1] - 1) * self.stride + 1,
                    channels,
                )
                yield lax.slice(padded, (0, row, column, 0), last, steps)


def make_window(
    kernel_size: int | tuple[int, int],
    stride: int,
    padding: Padding,
    rounding: Rounding = "floor",
) -> Window:
    """The geometry of a layer, from sides or pairs of sides."""
    if isinstance(kernel_size, int):
        kernel_size = (kernel_size, kernel_size)
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    return Window(kernel_size, stride, padding, rounding)


def max_pool(
    features: FeatureMap,
    kernel_size: int | tuple[int, int],
    *,
    stride: int,
    padding: Padding = 0,
    rounding: Rounding = "floor",
) -> FeatureMap:
    """The maximum of each window; padding never wins.

    Args:
        features: the map.
        kernel_size: one side of the window, or height and width.
        stride: step of the window.
        padding: cells around the map, counted as absent.
        rounding: "ceil" also takes an incomplete last window.
    """
    window = make_window(kernel_size, stride, padding, rounding)
    values = mask_outside(features, fill=-math.inf)
    slices = window.slices(values, -math.inf)
    out = next(slices)
    for other in slices:
        # The first maximum takes the whole gradient, as in PyTorch; a NaN is kept.
        out = jnp.where((other > out) | jnp.isnan(other), other, out)
    pooled = FeatureMap(out, window.out_sizes(features.sizes))
    # Windows wholly outside are -inf, which must not meet a zero weight.
    return pooled._replace(values=mask_outside(pooled))


def average_pool(
    features: FeatureMap,
    kernel_size: int | tuple[int, int],
    *,
    stride: int,
    padding: Padding = 0,
) -> FeatureMap:
    """The mean of each window over the cells inside the map: padding is not counted.

    Args:
        features: the map.
        kernel_size: one side of the window, or height and width.
        stride: step of the window.
        padding: cells around the map, counted as absent.
    """
    window = make_window(kernel_size, stride, padding)
    values = mask_outside(features)
    total = sum(window.slices(values, 0.0))
    if features.sizes is None:
        valid = jnp.asarray(values.shape[1:3], jnp.int32)[None]
    else:
        valid = features.sizes
    counts = []
    for axis, length in enumerate(window.out_shape(values)):
        places = jnp.arange(length, dtype=jnp.int32)
        start = (places * stride - window.padding[axis][0])[None]
        end = jnp.minimum(start + window.kernel[axis], valid[:, axis, None])
        counts.append(end - jnp.maximum(start, 0))
    # At least 1: windows wholly outside hold nothing.
    count = jnp.maximum(counts[0][:, :, None] * counts[1][:, None, :], 1)[..., None]
    out = total / count.astype(values.dtype)
    return FeatureMap(out, window.out_sizes(features.sizes))


def global_average_pool(features: FeatureMap) -> jax.Array:
    """The mean over the valid positions, [B, C], computed in float32 or more."""
    values = mask_outside(features)
    stored = parameter_dtype(values.dtype)
    total = values.astype(stored).sum(axis=(1, 2))
    if features.sizes is None:
        return total / (values.shape[1] * values.shape[2])
    return total / features.sizes.prod(axis=1, keepdims=True).astype(stored)


def crop_to(features: FeatureMap, height: int, width: int) -> FeatureMap:
    """The top-left height x width cells of the canvas."""
    values = features.values[:, :height, :width, :]
    if features.sizes is None:
        return FeatureMap(values)
    limit = jnp.asarray([[height, width]], jnp.int32)
    return FeatureMap(values, jnp.minimum(features.sizes, limit))
