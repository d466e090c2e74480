"""Another network's weights in this package's terms, and what its readers share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.convert.unwrap import FLOATS, bare_key
from multigrain_jax.errors import InputError
from multigrain_jax.models.heads import DescriptorHead

NO_WHITENING = "none"


class Weights(NamedTuple):
    """What a weight file holds.

    Attributes:
        tensors: arrays of the state dict, by the file's own keys.
        beside: what is beside the state dict, by name.
        name: of the file.
    """

    tensors: Mapping[str, np.ndarray]
    beside: Mapping[str, Any]
    name: str

    @property
    def bare(self) -> dict[str, np.ndarray]:
        """The arrays without what wrappers put before their keys."""
        return {bare_key(key): value for key, value in self.tensors.items()}


class HeadOptions(NamedTuple):
    """What the person who converts may choose.

    Attributes:
        whitening: which of the file's learned whitenings; "none" leaves them out, and
            None takes the only one.
        whitening_power: exponent of the variances that a PCA divides by, of
            deep-image-retrieval alone: 0.5 whitens fully, and its authors' figures are
            of 0.25, which None is.
    """

    whitening: str | None = None
    whitening_power: float | None = None


@dataclass(frozen=True)
class ForeignModel:
    """A trunk of the table of backbones with another network's head.

    Attributes:
        trunk: arrays by torchvision's keys, without a classifier.
        pooling_exponent: p of its pooling.
        head: the row.
        projections: the arrays of each of its projections, float32.
        renamed: whether the file's keys are others than the trunk's here.
        num_used: keys that went into the head and the pooling.
        ignored: reason -> how many keys were left out for it.
        cast: float type -> how many arrays of it, beside the trunk, became float32.
        notes: lines that tell what was chosen.
    """

    trunk: dict[str, np.ndarray]
    pooling_exponent: float
    head: DescriptorHead
    projections: tuple[dict[str, np.ndarray], ...]
    renamed: bool = False
    num_used: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    cast: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def linear(tensors: Mapping[str, np.ndarray], module: str) -> dict[str, np.ndarray]:
    """A linear layer of torch as a projection with a bias.

    Args:
        tensors: arrays by key.
        module: the layer's name; `.weight` [out, in] and `.bias` [out] are its arrays.

    Raises:
        InputError: one is missing, or has another shape or numbers that are not finite.
    """
    found = {}
    for leaf, ndim in (("weight", 2), ("bias", 1)):
        key = f"{module}.{leaf}"
        if key not in tensors:
            raise InputError(f"{key}: missing; a linear layer was expected in the file")
        found[leaf] = _finite(key, tensors[key], ndim)
    weight, bias = found["weight"], found["bias"]
    if len(weight) != len(bias):
        raise InputError(
            f"{module}.bias: found {list(bias.shape)}, expected [{len(weight)}]"
        )
    return {"projection": _float32(weight.T), "bias": _float32(bias)}


def centred_projection(
    mean: Any, components: Any, *, name: str
) -> dict[str, np.ndarray]:
    """Components (x - mean) as a projection with a mean.

    Args:
        mean: D numbers, of any shape.
        components: [K, D].
        name: what the error calls them.

    Raises:
        InputError: other shapes, or numbers that are not finite.
    """
    rows = _finite(f"{name}: components", components, 2)
    centre = _finite(f"{name}: mean", np.reshape(np.asarray(mean), -1), 1)
    if rows.shape[1] != len(centre):
        raise InputError(
            f"{name}: found components {list(rows.shape)} and a mean of "
            f"{len(centre)}, expected as many columns as the mean has numbers"
        )
    return {"projection": _float32(rows.T), "mean": _float32(centre)}


def choose_whitening(
    found: Mapping[str, Any], options: HeadOptions, *, where: str
) -> str | None:
    """The name of the learned whitening that is to be taken; None: none.

    Args:
        found: the file's whitenings by name.
        options: what is asked for.
        where: the place in the file, for the message.

    Raises:
        InputError: there is none of this name, or there are several and none is named.
    """
    names = [str(name) for name in found]
    wanted = options.whitening
    if wanted == NO_WHITENING or (wanted is None and not names):
        return None
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return wanted
    listed = ", ".join(names) or "none"
    raise InputError(
        f"{where}: found the learned whitenings {listed}, expected "
        f"{'one' if wanted is None else wanted}; name one with --whitening, or leave "
        f"them out with --whitening {NO_WHITENING}"
    )


def number_at(value: Any, *, name: str) -> float:
    """The one number of an array of any shape.

    Raises:
        InputError: there are several, or none, or it is not above 0.
    """
    array = np.reshape(np.asarray(value, np.float64), -1)
    if array.shape != (1,) or not array[0] > 0:
        raise InputError(
            f"{name}: found {array.tolist()[:3]}, expected one pooling exponent above "
            "0 for all channels"
        )
    return float(array[0])


def _finite(name: str, value: Any, ndim: int) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != ndim or array.dtype.name not in FLOATS:
        raise InputError(
            f"{name}: found {array.dtype}{list(array.shape)}, expected floats in "
            f"{ndim} dimension{'s' if ndim > 1 else ''}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(
            f"{name}: found a NaN or an infinity, expected finite numbers; take the "
            "weights of before the training broke down"
        )
    return array


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
