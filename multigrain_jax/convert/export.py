"""A checkpoint of this package becomes a weight file of the original's or of others."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.layouts import (
    ORIGINAL,
    name_in_layout,
    state_dict_in_layout,
)
from multigrain_jax.convert.safetensors_file import write_safetensors
from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically
from multigrain_jax.models.multigrain import variables_of
from multigrain_jax.remedies import install

SAFETENSORS = ".safetensors"


class Exported(NamedTuple):
    """What was written.

    Attributes:
        num_keys: of the state dict.
        left_out: a line for everything of the checkpoint that the file cannot hold.
    """

    num_keys: int
    left_out: list[str]


def export_checkpoint(
    path: str | Path,
    destination: str | Path,
    *,
    step: int | None = None,
    raw: bool = False,
    layout: str = ORIGINAL,
) -> Exported:
    """Write a state dict, with torch.save or, for a name in .safetensors, as such.

    With torch.save the original's layout is `{model_state, extra: {beta}}`; all others
    are the state dict alone. The optimiser's state is not exported: its layout is
    PyTorch's own.

    Args:
        path: a workdir or a step folder.
        destination: the file to write; must not exist.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step also where there is their running average.
        layout: one of `layouts.LAYOUTS`.

    Raises:
        InputError: torch is missing and needed, no such checkpoint, the file exists, or
            the layout has no place for the model.
    """
    destination = local_path(destination, what="the file to write")
    is_safetensors = destination.suffix == SAFETENSORS
    torch = None if is_safetensors else _import_torch()
    if destination.exists():
        raise InputError(
            f"{destination}: exists already; delete it or choose another name"
        )
    checkpoint = load_checkpoint(path, step=step, raw=raw)
    backbone = checkpoint.meta["backbone"]
    variables = variables_of(checkpoint.model)
    arrays = state_dict_in_layout(variables, backbone=backbone, layout=layout)
    margin = checkpoint.model["params"].get("margin")
    beta = None if margin is None else float(margin["beta"])
    left_out = []
    exponent = float(variables.pooling_exponent)
    if layout != ORIGINAL and exponent != 1:
        left_out.append(
            f"the pooling exponent p = {exponent:g}: {layout}'s networks average, with "
            "which the classifier was not trained"
        )
    if beta is not None and (is_safetensors or layout != ORIGINAL):
        left_out.append(f"the margin's threshold, {beta:g}")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(destination) as file:
        if torch is None:
            metadata = {"format": "pt"}
            if layout != ORIGINAL:
                metadata["architecture"] = name_in_layout(backbone, layout)
            write_safetensors(file, arrays, metadata)
        else:
            tensors = _as_tensors(torch, arrays)
            extra = {} if beta is None else {"beta": beta}
            whole = {"model_state": tensors, "extra": extra}
            torch.save(whole if layout == ORIGINAL else tensors, file)
    return Exported(len(arrays), left_out)


def _as_tensors(torch: ModuleType, arrays: Mapping[str, np.ndarray]) -> dict:
    return {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is needed to write .pth files and is not installed: "
            f"{install('convert')}; a .safetensors file needs none"
        ) from error
    return torch
