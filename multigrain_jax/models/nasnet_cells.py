"""What NASNet and PNASNet share: a network of cells, each built from its plan.

Zoph et al., "Learning transferable architectures for scalable image
recognition", 2018; Liu et al., "Progressive neural architecture search", 2018.

At odd sizes the branches differ by one in height or width: they are cropped to the
smallest, top-left kept, before every sum and concatenation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.models.cell_plans import (
    LEFT,
    RIGHT,
    Branch,
    CellSpec,
    Sampling,
    Source,
)
from multigrain_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    Identity,
    Padding,
    Rng,
    average_pool,
    crop_to,
    max_pool,
    relu,
)

BN_EPSILON = 1e-3

_POOLS = {"max_pool": max_pool, "average_pool": average_pool}


class Makers(NamedTuple):
    """Makers of layers, with what is the same throughout a network filled in."""

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]


def placement(kernel: int, sampling: Sampling) -> tuple[int, Padding]:
    """Stride and padding that centre a window of `kernel` pixels as `sampling` says."""
    after = kernel // 2
    before = after - 1 if sampling == "odd" else after
    stride = 1 if sampling == "dense" else 2
    return stride, ((before, after), (before, after))


def crop_to_smallest(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """The maps cut to the smallest height and width among them, top-left kept.

    The canvas is cut to the smallest canvas, and each image to its own smallest size.
    """
    height = min(features.values.shape[1] for features in maps)
    width = min(features.values.shape[2] for features in maps)
    cropped = [crop_to(features, height, width) for features in maps]
    sizes = [features.sizes for features in cropped if features.sizes is not None]
    if not sizes:
        return cropped
    smallest = jnp.stack(sizes).min(axis=0)
    return [features._replace(sizes=smallest) for features in cropped]


def add(first: FeatureMap, second: FeatureMap) -> FeatureMap:
    """The sum of two maps, cropped to the smaller."""
    first, second = crop_to_smallest([first, second])
    return first._replace(values=first.values + second.values)


def concatenate(maps: Sequence[FeatureMap]) -> FeatureMap:
    """The maps, cropped to the smallest, one after the other along the channels."""
    cropped = crop_to_smallest(maps)
    values = jnp.concatenate([features.values for features in cropped], axis=-1)
    return cropped[0]._replace(values=values)


class SeparableStep(nnx.Module):
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""

    FOLDS: ClassVar = {"norm": ("pointwise",)}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        sampling: Sampling,
        make: Makers,
    ):
        """Creates the layers."""
        stride, padding = placement(kernel, sampling)
        self.depthwise = make.conv(
            in_channels,
            in_channels,
            kernel,
            stride=stride,
            padding=padding,
            groups=in_channels,
        )
        self.pointwise = make.conv(in_channels, out_channels, 1)
        self.norm = make.norm(out_channels)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, H', W', out_channels]."""
        return self.norm(self.pointwise(self.depthwise(relu(x))))


class Separable(nnx.Module):
    """Two separable steps; the first one samples and changes the channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        sampling: Sampling,
        make: Makers,
    ):
        """Creates the steps."""
        step = partial(SeparableStep, kernel=kernel, make=make)
        self.first = step(in_channels, out_channels, sampling=sampling)
        self.second = step(out_channels, out_channels, sampling="dense")

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, H', W', out_channels]."""
        return self.second(self.first(x))


class Pointwise(nnx.Module):
    """ReLU, 1x1 convolution, batch norm."""

    FOLDS: ClassVar = {"norm": ("conv",)}

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, make: Makers
    ):
        """Creates the layers."""
        self.conv = make.conv(in_channels, out_channels, 1, stride=stride)
        self.norm = make.norm(out_channels)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, ceil(H / stride), …, out_channels]."""
        return self.norm(self.conv(relu(x)))


class FactorizedReduction(nnx.Module):
    """Half the size without losing a pixel's row to the stride.

    After a ReLU, one 1x1 convolution reads pixels 0, 2, 4, …, another 1, 3, 5, …
    (zero past the end); concatenated, with one batch norm.
    """

    FOLDS: ClassVar = {"norm": ("even", "odd")}

    def __init__(self, in_channels: int, out_channels: int, *, make: Makers):
        """Creates the layers; `out_channels` is even."""
        one_later = ((-1, 1), (-1, 1))
        half = out_channels // 2
        self.even = make.conv(in_channels, half, 1, stride=2)
        self.odd = make.conv(in_channels, half, 1, stride=2, padding=one_later)
        self.norm = make.norm(out_channels)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, ceil(H / 2), ceil(W / 2), out_channels]."""
        x = relu(x)
        return self.norm(concatenate([self.even(x), self.odd(x)]))


class Pool(nnx.Module):
    """A max-pool or average pool; then a 1x1 convolution where channels change."""

    FOLDS: ClassVar = {"norm": ("conv",)}

    def __init__(
        self,
        branch: Branch,
        in_channels: int,
        out_channels: int,
        *,
        sampling: Sampling,
        make: Makers,
    ):
        """Creates the layers."""
        self.branch = branch
        self.sampling: Sampling = sampling
        if in_channels != out_channels:
            self.conv = make.conv(in_channels, out_channels, 1)
            self.norm = make.norm(out_channels)
        else:
            self.conv = self.norm = None

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """[B, H, W, in_channels] -> [B, H', W', out_channels]."""
        pool = _POOLS[self.branch.operation]
        stride, padding = placement(self.branch.kernel, self.sampling)
        x = pool(x, self.branch.kernel, stride=stride, padding=padding)
        if self.conv is not None and self.norm is not None:
            x = self.norm(self.conv(x))
        return x


def _make_branch(
    branch: Branch,
    in_channels: int,
    out_channels: int,
    *,
    sampling: Sampling,
    make: Makers,
) -> nnx.Module:
    if branch.operation == "separable":
        return Separable(
            in_channels, out_channels, branch.kernel, sampling=sampling, make=make
        )
    if branch.operation in _POOLS:
        return Pool(branch, in_channels, out_channels, sampling=sampling, make=make)
    if sampling == "dense" and in_channels == out_channels:
        return Identity()
    # Pixels 0, 2, 4, … in "odd" cells too: the trained networks have it so.
    stride = 1 if sampling == "dense" else 2
    return Pointwise(in_channels, out_channels, stride=stride, make=make)


class Cell(nnx.Module):
    """Two maps -> one, as a `CellPlan` says."""

    def __init__(
        self,
        spec: CellSpec,
        *,
        left: nnx.Module,
        left_channels: int,
        right: nnx.Module,
        make: Makers,
    ):
        """Creates the branches.

        Args:
            spec: plan, width and sampling.
            left: what the older input goes through first.
            left_channels: the channels that `left` gives.
            right: what the newer input goes through first; gives `spec.width`.
            make: makers of layers.
        """
        self.plan = spec.plan
        self.left = left
        self.right = right
        self.branches = nnx.List()
        for pair in spec.plan.sums:
            modules = nnx.List()
            for branch in pair:
                reads_sum = isinstance(branch.source, int)
                module = _make_branch(
                    branch,
                    left_channels if branch.source == LEFT else spec.width,
                    spec.width,
                    sampling="dense" if reads_sum else spec.sampling,
                    make=make,
                )
                modules.append(module)
            self.branches.append(modules)

    def __call__(self, older: FeatureMap, newer: FeatureMap) -> FeatureMap:
        """Outputs of the two cells before -> this cell's output."""
        maps: dict[Source, FeatureMap] = {
            LEFT: self.left(older),
            RIGHT: self.right(newer),
        }
        for number, pair in enumerate(self.plan.sums):
            first, second = (
                module(maps[branch.source])
                for module, branch in zip(self.branches[number], pair, strict=True)
            )
            maps[number] = add(first, second)
        return concatenate([maps[source] for source in self.plan.outputs])


class CellNetwork(nnx.Module):
    """A trunk: 3x3/2 stem without padding, cells, a final ReLU."""

    FOLDS: ClassVar = {"stem_norm": ("stem",)}

    def __init__(
        self,
        *,
        stem_width: int,
        cells: tuple[CellSpec, ...],
        group_size: int,
        dtype: DTypeLike = jnp.float32,
        rng: Rng,
    ):
        """Creates the layers.

        Args:
            stem_width: channels of the stem.
            cells: the cells in order. The first reads the stem twice, as it is on the
                left; after a cell that halves the map, the older input is halved by a
                factorised reduction.
            group_size: consecutive samples that share batch statistics.
            dtype: compute dtype.
            rng: source of the initial values.
        """
        make = Makers(
            conv=partial(Conv, dtype=dtype, rng=rng),
            norm=partial(BatchNorm, eps=BN_EPSILON, group_size=group_size, dtype=dtype),
        )
        self.stem = make.conv(3, stem_width, 3, stride=2)
        self.stem_norm = make.norm(stem_width)
        self.cells = nnx.List()
        older = newer = stem_width
        previous: Sampling | None = None
        for spec in cells:
            left_channels = spec.width
            if previous is None:
                left, left_channels = Identity(), older
            elif previous == "dense":
                left = Pointwise(older, spec.width, make=make)
            else:
                left = FactorizedReduction(older, spec.width, make=make)
            right = Pointwise(newer, spec.width, make=make)
            cell = Cell(
                spec, left=left, left_channels=left_channels, right=right, make=make
            )
            self.cells.append(cell)
            older, newer = newer, spec.width * len(spec.plan.outputs)
            previous = spec.sampling

    def stages(self, x: FeatureMap) -> list[FeatureMap]:
        """The stem's output and every cell's, before the final ReLU."""
        stem = self.stem_norm(self.stem(x))
        outputs = [stem, stem]
        for cell in self.cells:
            outputs.append(cell(outputs[-2], outputs[-1]))
        return outputs[1:]

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Normalised images [B, H, W, 3] -> features."""
        # Invisible under GeM with its clamp, decisive under a plain mean (p = 1).
        return relu(self.stages(x)[-1])
