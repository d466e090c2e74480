"""The layers with parameters that trunks are built of, with PyTorch's arithmetic.

The layers without (pooling, ReLU) and the `FeatureMap` they all map are those of
`windows`, offered here too.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from multigrain_jax.models.windows import (
    FeatureMap,
    Padding,
    Window,
    average_pool,
    crop_to,
    global_average_pool,
    make_window,
    mask_outside,
    max_pool,
    parameter_dtype,
    relu,
)

__all__ = [
    "BatchNorm",
    "Conv",
    "FeatureMap",
    "Identity",
    "Initializer",
    "Linear",
    "Padding",
    "Rng",
    "average_pool",
    "crop_to",
    "draw",
    "fan_in_uniform",
    "fan_out_normal",
    "global_average_pool",
    "group_moments",
    "mask_outside",
    "max_pool",
    "parameter_dtype",
    "relu",
]

RUNNING_KEPT = 0.9  # the part of a running statistic that an update keeps

# Where initial values come from. None where a model's shapes are all that is wanted:
# nothing is drawn then.
Rng = np.random.Generator | None

# (rng, shape, fan_in) -> values.
Initializer = Callable[[np.random.Generator, tuple[int, ...], int], np.ndarray]


def fan_in_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int
) -> np.ndarray:
    """Draws from U(-b, b), b = 1/sqrt(fan_in): PyTorch's default, biases alike."""
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape)


def fan_out_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int
) -> np.ndarray:
    """Draws from N(0, 2/fan_out) for an HWIO shape: torchvision's ResNets."""
    del fan_in
    height, width, _, out_channels = shape
    return rng.standard_normal(shape) * math.sqrt(2 / (height * width * out_channels))


def draw(
    initializer: Initializer,
    rng: Rng,
    shape: tuple[int, ...],
    *,
    fan_in: int,
    dtype: DTypeLike,
) -> nnx.Param:
    """A parameter with its initial values; without a generator they are zeros.

    Under `nnx.eval_shape` zeros cost neither time nor memory, which drawing would, as
    NumPy draws.
    """
    if rng is None:
        return nnx.Param(jnp.zeros(shape, dtype))
    return nnx.Param(jnp.asarray(initializer(rng, shape, fan_in), dtype))


class Conv(nnx.Module):
    """Cross-correlation of an NHWC map with an HWIO kernel.

    A kernel of [kh, kw, in_channels / groups, out_channels]; groups = in_channels is
    a depthwise convolution. Paddings are written out as ((top, bottom), (left, right))
    and may be negative: ((-1, 1), (-1, 1)) starts the windows one pixel later.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: Padding = 0,
        groups: int = 1,
        use_bias: bool = False,
        initializer: Initializer = fan_in_uniform,
        dtype: DTypeLike = jnp.float32,
        rng: Rng,
    ):
        """Creates the parameters.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel_size: one side, or height and width.
            stride: step of the window, along both sides.
            padding: zeros around the map.
            groups: channel groups that are convolved separately.
            use_bias: whether a bias is added.
            initializer: draws the kernel; a bias is always drawn from
                U(-b, b), b = 1/sqrt(fan_in).
            dtype: compute dtype; parameters are float32 or more.
            rng: source of the initial values.
        """
        self.window = make_window(kernel_size, stride, padding)
        self.groups = groups
        self.dtype = dtype
        shape = (*self.window.kernel, in_channels // groups, out_channels)
        fan_in = math.prod(shape[:3])
        stored = parameter_dtype(dtype)
        self.kernel = draw(initializer, rng, shape, fan_in=fan_in, dtype=stored)
        if use_bias:
            self.bias = draw(
                fan_in_uniform, rng, (out_channels,), fan_in=fan_in, dtype=stored
            )
        else:
            self.bias = None

    def __call__(self, features: FeatureMap) -> FeatureMap:
        """The convolved map, in the compute dtype."""
        window = self.window
        values = mask_outside(features) if window.reads_beyond else features.values
        values = values.astype(self.dtype)
        kernel = self.kernel[...].astype(self.dtype)
        if (
            self.groups == 1
            and window.kernel != (1, 1)
            and max(window.out_shape(values)) <= 2
        ):
            out = _convolve_tiny(values, kernel, window)
        else:
            values, padding = _without_negative_padding(values, window.padding)
            out = lax.conv_general_dilated(
                values,
                kernel,
                (window.stride, window.stride),
                padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=self.groups,
            )
        if self.bias is not None:
            out = out + _across_map(self.bias[...].astype(self.dtype))
        return FeatureMap(out, window.out_sizes(features.sizes))


def _across_map(values: jax.Array) -> jax.Array:
    """Values of the channels [C] as they meet a map: [1, 1, 1, C]."""
    return values[None, None, None]


def _without_negative_padding(
    values: jax.Array, padding: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[jax.Array, tuple[tuple[int, int], tuple[int, int]]]:
    # With a negative padding XLA's CPU convolutions read past the end of the map.
    if min(min(sides) for sides in padding) >= 0:
        return values, padding
    config = [(0, 0, 0), *((before, after, 0) for before, after in padding), (0, 0, 0)]
    zero = jnp.zeros((), values.dtype)
    return lax.pad(values, zero, config), ((0, 0), (0, 0))


def _convolve_tiny(values: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    # XLA's CPU convolutions, and more so their gradients, are a hundred times slower
    # than the same work as a matrix product when the output is 2x2 or less.
    patches = jnp.concatenate(list(window.slices(values, 0.0)), axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


class Linear(nnx.Module):
    """x @ kernel + bias, with a kernel of [in_features, out_features]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        rng: Rng,
    ):
        """Creates kernel and bias, both from U(-b, b), b = 1/sqrt(in_features).

        Args:
            in_features: length of the input.
            out_features: length of the output.
            dtype: compute dtype; parameters are float32 or more.
            rng: source of the initial values.
        """
        self.dtype = dtype
        uniform = partial(
            draw, fan_in_uniform, rng, fan_in=in_features, dtype=parameter_dtype(dtype)
        )
        self.kernel = uniform((in_features, out_features))
        self.bias = uniform((out_features,))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in_features] -> [..., out_features], in the compute dtype."""
        product = x.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
        bias = self.bias[...].astype(self.dtype)
        return product + jnp.expand_dims(bias, range(product.ndim - 1))


class Identity(nnx.Module):
    """Its input."""

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """The argument."""
        return x


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's statistics, inside groups of samples.

    y = (x - mean) / sqrt(var + eps) * scale + bias. In training, mean and (biased)
    variance are those of each group of `group_size` consecutive samples; the running
    values keep 0.9 and take 0.1 of the mean over groups of the group means and of the
    unbiased group variances. In evaluation the running values normalise.
    Ioffe and Szegedy 2015, algorithms 1 and 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float,
        group_size: int,
        dtype: DTypeLike = jnp.float32,
    ):
        """Creates scale and variance 1, bias and mean 0.

        Args:
            channels: channels of the map.
            eps: added to the variance.
            group_size: consecutive samples that share statistics in training; a
                smaller batch is one group.
            dtype: dtype of the result; statistics are float32 or more.
        """
        self.eps = eps
        self.group_size = group_size
        self.dtype = dtype
        self.use_running_average = False  # set by model.train() and model.eval()
        stored = parameter_dtype(dtype)
        self.scale = nnx.Param(jnp.ones(channels, stored))
        self.bias = nnx.Param(jnp.zeros(channels, stored))
        self.mean = nnx.BatchStat(jnp.zeros(channels, stored))
        self.var = nnx.BatchStat(jnp.ones(channels, stored))

    def __call__(self, features: FeatureMap) -> FeatureMap:
        """The normalised map; in training the running values are updated."""
        values = features.values.astype(parameter_dtype(self.dtype))
        if self.use_running_average:
            mean, var = _across_map(self.mean[...]), _across_map(self.var[...])
        else:
            if features.sizes is not None:
                raise ValueError(
                    "Batch norm got images of different sizes in one canvas in "
                    "training mode; its statistics are defined for whole canvases "
                    "only: crop the images to one size, or call model.eval()."
                )
            mean, var = self._update(values)
        factor = _across_map(self.scale[...]) * lax.rsqrt(var + self.eps)
        # Subtracting first keeps the digits where the mean is far above the deviation.
        out = (values - mean) * factor + _across_map(self.bias[...])
        return features._replace(values=out.astype(self.dtype))

    def _update(self, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Group statistics, broadcast to [B, 1, 1, C]; updates the running ones."""
        batch, height, width, channels = values.shape
        group = min(self.group_size, batch)
        mean, var = group_moments(values, group_size=group)
        count = group * height * width
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            new = lax.stop_gradient(new.mean(axis=0))
            kept = RUNNING_KEPT * running[...]
            # `running[...] =` looks at the tracer's sharding: most of all tracing then.
            running.set_value(kept + (1 - RUNNING_KEPT) * new)
        spread = (batch // group, group, channels)
        mean, var = (
            jnp.broadcast_to(moment[:, None], spread).reshape(batch, 1, 1, channels)
            for moment in (mean, var)
        )
        return mean, var


def group_moments(values: jax.Array, *, group_size: int) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over each group of consecutive samples.

    Args:
        values: [B, H, W, C], float32 or more.
        group_size: samples of a group; divides B.

    Returns:
        Mean and variance, [B / group_size, C] each.

    Raises:
        ValueError: the batch is not a whole number of groups.
    """
    batch, _, _, channels = values.shape
    if batch % group_size:
        raise ValueError(
            f"A batch of {batch} samples cannot be cut into batch norm groups of "
            f"{group_size}: choose batch_norm_group_size to divide the batch."
        )
    # One pass over the map gives both moments. Counted from the sample's first pixel
    # they lose nothing where the mean is far above the deviation. Only [B, C] arrays
    # are reshaped: reshaping the map would gather it when groups straddle devices.
    shift = lax.stop_gradient(values[:, :1, :1, :])
    centred = values - shift
    first = centred.mean(axis=(1, 2))
    second = jnp.square(centred).mean(axis=(1, 2))
    grouped = (batch // group_size, group_size, channels)
    sample_mean = (first + shift[:, 0, 0, :]).reshape(grouped)
    sample_var = (second - jnp.square(first)).reshape(grouped)
    mean = sample_mean.mean(axis=1)
    between = jnp.square(sample_mean - mean[:, None]).mean(axis=1)
    return mean, jnp.maximum(sample_var.mean(axis=1) + between, 0)
