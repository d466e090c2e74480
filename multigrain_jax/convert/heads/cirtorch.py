"""cirtorch: GeM with a learned p, unit length, a learned whitening, unit length.

Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation",
2018. Layout from its loading code, not tried on its files, in
github.com/filipradenovic/cnnimageretrieval-pytorch: the network from
`cirtorch/networks/imageretrievalnet.py` (at 79e77e88825b07b4058a16d86a2e44de32b64adc),
the checkpoint and its whitenings from `cirtorch/examples/test.py` (at
628249b18b76089beea74f93c3932bd72dd8c06d) and `cirtorch/utils/whiten.py` (at
22b86781f2d81bd88964e81a3b3ac1c5c2935569).

A file is {"meta", "state_dict"}: the ResNet's layers are numbered in `features`, the
whitening that was trained with it is `whiten`, and those that were fitted afterwards
are in meta's `Lw`, by data set and by one scale ("ss") or several ("ms").
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from multigrain_jax.convert.heads.foreign import (
    ForeignModel,
    HeadOptions,
    Weights,
    centred_projection,
    choose_whitening,
    linear,
    number_at,
)
from multigrain_jax.convert.unwrap import shown
from multigrain_jax.errors import InputError
from multigrain_jax.models.heads import DescriptorHead, Offset, Projection

ORIGIN = "cirtorch"
ENTRY = "meta"
_CHILDREN = {"0": "conv1", "1": "bn1"} | {f"{3 + n}": f"layer{n}" for n in range(1, 5)}
_CONSTANT_POOLINGS = {"mac": math.inf, "spoc": 1.0}
_POOLINGS = ("gem", *_CONSTANT_POOLINGS)
_NOT_BUILT = ("regional", "local_whitening")
_ONE_SCALE = "ss"


def recognises(weights: Weights) -> str | None:
    """How it is known that the file is cirtorch's: by what it was built of."""
    meta = weights.beside.get(ENTRY)
    if isinstance(meta, Mapping) and {"architecture", "pooling"} <= meta.keys():
        return f"by its {ENTRY}"
    return None


def read(weights: Weights, options: HeadOptions) -> ForeignModel:
    """The trunk, and the whitenings as the head.

    Raises:
        InputError: a network that is not built here, or a whitening that is not there.
    """
    if recognises(weights) is None:
        raise InputError(
            f"{weights.name}: cirtorch's {{'meta', 'state_dict'}} was expected, found "
            "no meta with an architecture and a pooling"
        )
    if options.whitening_power is not None:
        raise InputError(
            f"{weights.name}: cirtorch's whitenings are applied as they are, found a "
            "power for them; leave out --whitening-power"
        )
    meta, bare = weights.beside[ENTRY], weights.bare
    _require_built(meta)
    rows: list[Projection] = []
    arrays: list[dict[str, np.ndarray]] = []
    if "whiten.weight" in bare:
        arrays.append(linear(bare, "whiten"))
        rows.append(_row(arrays[-1], "bias"))
    elif meta.get("whitening"):
        raise InputError("whiten.weight: missing; expected, as meta has a whitening")
    learned = meta.get("Lw")
    learned = learned if isinstance(learned, Mapping) else {}
    name = choose_whitening(learned, options, where="meta's Lw")
    if name is not None:
        arrays.append(_learned(learned[name], name))
        rows.append(_row(arrays[-1], "mean"))
    trunk = {
        _torchvision_key(key): value
        for key, value in bare.items()
        if key != "pool.p" and not key.startswith("whiten.")
    }
    return ForeignModel(
        trunk=trunk,
        pooling_exponent=_exponent(bare, meta),
        head=DescriptorHead(ORIGIN, tuple(rows), "plus_epsilon"),
        projections=tuple(arrays),
        renamed=True,
        num_used=len(bare) - len(trunk),
        notes=(f"learned whitening: {name or 'none'}",),
    )


def _require_built(meta: Mapping[str, Any]) -> None:
    architecture, pooling = shown(meta["architecture"]), shown(meta["pooling"])
    if not architecture.startswith("resnet") or pooling not in _POOLINGS:
        raise InputError(
            f"cirtorch: found {architecture} with the pooling {pooling}, expected a "
            f"ResNet with {', '.join(_POOLINGS)}"
        )
    for name in _NOT_BUILT:
        if meta.get(name):
            raise InputError(
                f"cirtorch: found meta's {name}, which is not built here; expected one "
                "descriptor of the whole photo, pooled from the network's own features"
            )


def _exponent(tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> float:
    pooling = meta["pooling"]
    if pooling in _CONSTANT_POOLINGS:
        return _CONSTANT_POOLINGS[pooling]
    if "pool.p" not in tensors:
        raise InputError("pool.p: missing; expected, as meta's pooling is gem")
    return number_at(tensors["pool.p"], name="pool.p")


def _learned(scales: Any, name: str) -> dict[str, np.ndarray]:
    """The whitening of descriptors of one scale: P (x - m)."""
    one = scales.get(_ONE_SCALE) if isinstance(scales, Mapping) else None
    if not isinstance(one, Mapping) or not {"m", "P"} <= one.keys():
        raise InputError(
            f"meta's Lw, {shown(name)}: one for a single scale was expected, "
            f"{_ONE_SCALE!r} with m and P, found another; leave it out with "
            "--whitening none"
        )
    return centred_projection(one["m"], one["P"], name=f"meta's Lw, {shown(name)}")


def _row(arrays: Mapping[str, np.ndarray], offset: Offset) -> Projection:
    components = arrays["projection"].shape[1]
    return Projection(components, normalize="plus_epsilon", offset=offset)


def _torchvision_key(key: str) -> str:
    child, _, rest = key.removeprefix("features.").partition(".")
    is_child = key.startswith("features.") and child in _CHILDREN
    return f"{_CHILDREN[child]}.{rest}" if is_child else key
