"""deep-image-retrieval: GeM, a linear layer, unit length, a PCA, unit length.

Revaud et al., "Learning with average precision: training image retrieval with a
listwise loss", 2019. Layout from its loading code, not tried on its files, in
github.com/naver/deep-image-retrieval: the checkpoint and its PCA from
`dirtorch/extract_features.py` and `dirtorch/utils/common.py` (both at
1e7de62d1c4e9677082ce62aa93d348051933fd1); the network, `dirtorch/nets/rmac_resnet.py`,
as the copy in github.com/hoanghuydo787/deep-image-retrieval has it (at
b8cc29f73bab0e81ddcaa306de82c19acc29edd5).

A file is {"model_options", "state_dict", "pca", …}: torchvision's keys, `adpool.p` for
a learned p, and `fc`; the PCAs by the data set that they were fitted to, as objects of
scikit-learn, of which the attributes alone are read.
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
from multigrain_jax.models.heads import DescriptorHead, Projection

ORIGIN = "deep-image-retrieval"
ENTRIES = ("model_options", "pca")
# The class whose attributes are read, under the names of scikit-learn's old and new.
PCA_CLASSES = ("sklearn.decomposition.pca.PCA", "sklearn.decomposition._pca.PCA")
USUAL_POWER = 0.25  # of its authors' figures
_ARCHITECTURES = tuple(f"resnet{n}_rmac" for n in (18, 50, 101, 152))
_CONSTANT_POOLINGS = {"max": math.inf, "avg": 1.0}
_NORM = "at_least_epsilon"


def recognises(weights: Weights) -> str | None:
    """How it is known that the file is this network's: by what it was built by."""
    options = weights.beside.get("model_options")
    if isinstance(options, Mapping) and "_rmac" in str(options.get("arch")):
        return "by its model_options"
    return None


def read(weights: Weights, options: HeadOptions) -> ForeignModel:
    """The trunk, and the linear layer and the PCA as the head.

    Raises:
        InputError: a network that is not built here, or a PCA that is not there.
    """
    if recognises(weights) is None:
        raise InputError(
            f"{weights.name}: deep-image-retrieval's {{'model_options', 'state_dict'}} "
            "was expected, found no model_options with an arch ending in _rmac"
        )
    built, bare = weights.beside["model_options"], weights.bare
    _require_built(built)
    first = _NORM if built.get("norm_features") else None
    rows: list[Projection] = []
    arrays: list[dict[str, np.ndarray]] = []
    num_ignored = sum(key.startswith("fc.") for key in bare)
    if not built.get("without_fc"):
        num_ignored = 0
        arrays.append(linear(bare, "fc"))
        rows.append(Projection(len(arrays[-1]["bias"]), False, first, "bias"))
    fitted = weights.beside.get("pca")
    fitted = fitted if isinstance(fitted, Mapping) else {}
    name = choose_whitening(fitted, options, where="pca")
    power = options.whitening_power
    note = "learned whitening: none"
    is_whitening = False
    if name is not None:
        pca = _checked_pca(fitted[name], name)
        is_whitening = bool(pca["whiten"])
        exponent = USUAL_POWER if power is None else power
        arrays.append(_projection_of(pca, name, exponent if is_whitening else None))
        rows.append(Projection(arrays[-1]["projection"].shape[1], False, _NORM, "mean"))
        how = (
            f"to the power {exponent:g}" if is_whitening else "a PCA without whitening"
        )
        note = f"learned whitening: {shown(name)}, {how}"
    if power is not None and not is_whitening:
        raise InputError(
            f"{weights.name}: a power of a whitening was given, and no whitening is "
            "taken; leave out --whitening-power"
        )
    trunk = {k: v for k, v in bare.items() if k != "adpool.p" and k[:3] != "fc."}
    return ForeignModel(
        trunk=trunk,
        pooling_exponent=_exponent(bare, built),
        head=DescriptorHead(ORIGIN, tuple(rows), _NORM),
        projections=tuple(arrays),
        num_used=len(bare) - len(trunk) - num_ignored,
        ignored={"fc, without which the network was built": num_ignored}
        if num_ignored
        else {},
        notes=(note,),
    )


def _require_built(built: Mapping[str, Any]) -> None:
    if built["arch"] not in _ARCHITECTURES:
        raise InputError(
            f"deep-image-retrieval: found {shown(built['arch'])}, expected one of "
            f"{', '.join(_ARCHITECTURES)}"
        )
    if built.get("center_bias"):
        raise InputError(
            "deep-image-retrieval: found model_options' center_bias, which weighs the "
            "middle of a photo and is not built here; expected none"
        )


def _exponent(tensors: Mapping[str, np.ndarray], built: Mapping[str, Any]) -> float:
    pooling = str(built.get("pooling", "gem"))
    if pooling in _CONSTANT_POOLINGS:
        return _CONSTANT_POOLINGS[pooling]
    if not pooling.startswith("gem"):
        raise InputError(
            f"deep-image-retrieval: found the pooling {shown(pooling)}, expected gem, "
            "max or avg"
        )
    return number_at(tensors.get("adpool.p", built.get("gemp", 3)), name="adpool.p")


def _checked_pca(fitted: Any, name: str) -> Mapping[str, Any]:
    """The attributes of a PCA, if it is one."""
    needed = {"mean_", "components_", "explained_variance_", "whiten"}
    if not isinstance(fitted, Mapping) or not needed <= fitted.keys():
        raise InputError(
            f"pca, {shown(name)}: a fitted PCA of scikit-learn was expected, found "
            "another object; leave it out with --whitening none"
        )
    return fitted


def _projection_of(
    pca: Mapping[str, Any], name: str, power: float | None
) -> dict[str, np.ndarray]:
    """Components (x - mean), each divided by its variance to a power; None: not."""
    where = f"pca, {shown(name)}"
    components = np.asarray(pca["components_"])
    variances = np.asarray(pca["explained_variance_"])
    if power is not None:
        if components.ndim != 2 or variances.shape != components.shape[:1]:
            raise InputError(
                f"{where}: found components {list(components.shape)} and variances "
                f"{list(variances.shape)}, expected a variance for each"
            )
        with np.errstate(all="ignore"):  # what is not finite is refused below
            scales = np.asarray(variances, np.float64) ** power
            components = np.asarray(components, np.float64) / scales[:, None]
    return centred_projection(pca["mean_"], components, name=where)
