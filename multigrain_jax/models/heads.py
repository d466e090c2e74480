"""What is between the pooled features and the descriptor, as data.

A head is a row: projections one after the other, and how the last one's output is
brought to unit length. MultiGrain's whitening is one of them; other networks' heads
differ in the numbers alone, and in two details of the normalisation.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.errors import InputError
from multigrain_jax.ops.pooling import append_one, l2_normalize, to_unit_length

Normalization = Literal["plus_epsilon", "at_least_epsilon"]
Offset = Literal["mean", "bias"]
NORMALIZATIONS: dict[Normalization, Callable[[jax.Array], jax.Array]] = {
    "plus_epsilon": l2_normalize,  # x / (‖x‖ + 1e-6), as MultiGrain and cirtorch
    "at_least_epsilon": to_unit_length,  # x / max(‖x‖, 1e-12), as PyTorch's normalize
}
MULTIGRAIN = "multigrain"
# Where a checkpoint's `meta` has another network's head, as `head_to_json` makes it.
HEAD_KEY = "descriptor_head"


class Projection(NamedTuple):
    """One step of a head: x ← [x, 1], x ← x/‖x‖, x ← (x - mean) P or x P + bias.

    Attributes:
        num_components: channels that come out; None: as many as go in.
        constant_channel: whether a channel of ones is appended first.
        normalize: how x is brought to unit length before it is projected; None: not.
        offset: whether a mean is subtracted before, or a bias added after.
    """

    num_components: int | None
    constant_channel: bool = False
    normalize: Normalization | None = None
    offset: Offset = "mean"


class DescriptorHead(NamedTuple):
    """How a pooled vector becomes a descriptor.

    Attributes:
        origin: whose it is.
        projections: one after the other; none leaves the pooled vector as it is.
        normalize: how the descriptor is brought to unit length.
    """

    origin: str = MULTIGRAIN
    projections: tuple[Projection, ...] = ()
    normalize: Normalization = "plus_epsilon"

    @property
    def is_whitening(self) -> bool:
        """Whether it is MultiGrain's own whitening."""
        return self.origin == MULTIGRAIN and bool(self.projections)


PLAIN_HEAD = DescriptorHead()


def whitening_head(num_components: int | None = None) -> DescriptorHead:
    """MultiGrain's: ([x, 1] / ‖[x, 1]‖ - mean) P, with K components or all D + 1."""
    projection = Projection(
        num_components, constant_channel=True, normalize="plus_epsilon"
    )
    return DescriptorHead(projections=(projection,))


class HeadValue(nnx.Variable):
    """An array of a head: fitted to data or imported, not trained here."""


class ProjectionLayer(nnx.Module):
    """A projection with its arrays."""

    def __init__(self, row: Projection, *, inputs: int, dtype: DTypeLike):
        """Creates offset 0 and projection 1.

        Args:
            row: what it does.
            inputs: channels that go in.
            dtype: of its arrays.
        """
        self.row = row
        dim = inputs + row.constant_channel
        self.num_components = dim if row.num_components is None else row.num_components
        self.is_complete = self.num_components == dim
        self.projection = HeadValue(jnp.eye(dim, self.num_components, dtype=dtype))
        is_mean = row.offset == "mean"
        self.mean = HeadValue(jnp.zeros(dim, dtype)) if is_mean else None
        self.bias = (
            None if is_mean else HeadValue(jnp.zeros(self.num_components, dtype))
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, inputs] -> [B, num_components]."""
        if self.row.constant_channel:
            x = append_one(x)
        if self.row.normalize is not None:
            x = NORMALIZATIONS[self.row.normalize](x)
        if self.mean is not None:
            x = x - self.mean[...][None]
        projected = jnp.matmul(
            x, self.projection[...], precision=jax.lax.Precision.HIGHEST
        )
        return projected if self.bias is None else projected + self.bias[...][None]


def describe_head(head: DescriptorHead, inputs: int) -> str:
    """A head in words, as "sscd: linear 2048 -> 512, unit length".

    Args:
        head: the row.
        inputs: channels that are pooled.
    """
    steps = []
    for row in head.projections:
        dim = inputs + row.constant_channel
        inputs = dim if row.num_components is None else row.num_components
        steps += ["a channel of ones"] if row.constant_channel else []
        steps += ["unit length"] if row.normalize else []
        kind = "linear" if row.offset == "bias" else "whitening"
        steps.append(f"{kind} {dim} -> {inputs}")
    return f"{head.origin}: {', '.join([*steps, 'unit length'])}"


def head_to_json(head: DescriptorHead) -> dict[str, Any]:
    """A head as a JSON object, for a checkpoint's `meta`."""
    rows = [projection._asdict() for projection in head.projections]
    return {**head._asdict(), "projections": rows}


def head_from_json(value: Mapping[str, Any]) -> DescriptorHead:
    """The inverse of `head_to_json`.

    Raises:
        InputError: something else, or of a later version.
    """
    try:
        rows = tuple(Projection(**row) for row in value["projections"])
        head = DescriptorHead(**{**value, "projections": rows})
    except (KeyError, TypeError) as error:
        raise _not_a_head(value) from error
    is_known = head.normalize in NORMALIZATIONS and all(
        row.normalize in (None, *NORMALIZATIONS) and row.offset in get_args(Offset)
        for row in rows
    )
    if not is_known:
        raise _not_a_head(value)
    return head


def _not_a_head(value: object) -> InputError:
    return InputError(
        f"descriptor head: found {value}, expected what `multigrain convert` "
        "writes into a checkpoint's meta; convert the weights anew"
    )
