"""Batch norms folded into the convolutions before them: a network for inference.

In evaluation (conv(x) - mean) / sqrt(var + eps) * scale + bias is a convolution too,
with another kernel and a bias. A module whose norms can be folded says so by a class
attribute `FOLDS`: {"norm": ("conv",)} for an attribute `norm` that is called with what
`conv` gives, or with what several convolutions give, concatenated. Both may be lists.
"""

import numpy as np
from flax import nnx

from multigrain_jax.models.layers import BatchNorm, Conv, Identity
from multigrain_jax.models.multigrain import merge_model, split_model
from multigrain_jax.models.variables import Variables


def fold_batch_norms(
    graphdef: nnx.GraphDef, variables: Variables
) -> tuple[nnx.GraphDef, Variables]:
    """A model with the same outputs, but for rounding, and fewer operations.

    Folded in float64 and stored in the parameters' dtype. It is for inference alone:
    there is no way back. Norms that no `FOLDS` names stay as they are.

    Args:
        graphdef: a model's evaluation structure.
        variables: its arrays; they are not changed.
    """
    model = merge_model(graphdef, variables)
    for _, module in list(nnx.iter_modules(model)):
        for name, sources in getattr(module, "FOLDS", {}).items():
            norm = getattr(module, name)
            convs = [getattr(module, source) for source in sources]
            if isinstance(norm, nnx.List):
                for place, row in enumerate(zip(norm, *convs, strict=True)):
                    norm[place] = _fold(*row)
            else:
                setattr(module, name, _fold(norm, *convs))
    return split_model(model)


def _fold(norm: nnx.Module | None, *convs: Conv) -> nnx.Module | None:
    """What takes the norm's place; the convolutions take over what it did."""
    if not isinstance(norm, BatchNorm):  # there is none, or it is folded already
        return norm
    if not norm.use_running_average:
        raise ValueError("A norm in training mode cannot be folded: call model.eval().")
    factor = _exact(norm.scale) / np.sqrt(_exact(norm.var) + norm.eps)
    shift = _exact(norm.bias) - _exact(norm.mean) * factor
    ends = np.cumsum([conv.kernel.shape[-1] for conv in convs])[:-1]
    for conv, own_factor, own_shift in zip(
        convs, np.split(factor, ends), np.split(shift, ends), strict=True
    ):
        if conv.bias is not None:
            own_shift = own_shift + _exact(conv.bias) * own_factor
        kernel = np.asarray(conv.kernel[...])
        # In float64 too, but piece by piece: as a whole it is new memory, which takes
        # longer than the products.
        folded = np.empty_like(kernel)
        np.multiply(
            kernel, own_factor, out=folded, dtype=np.float64, casting="same_kind"
        )
        conv.kernel = nnx.Param(folded)
        conv.bias = nnx.data(nnx.Param(own_shift.astype(kernel.dtype)))
    return Identity()


def _exact(values: nnx.Variable) -> np.ndarray:
    return np.asarray(values[...], np.float64)
