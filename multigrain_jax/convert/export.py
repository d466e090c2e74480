"""A checkpoint of this package becomes a checkpoint of the original's format."""

from pathlib import Path
from types import ModuleType

import numpy as np

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.state_dict import export_state_dict
from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically
from multigrain_jax.models.multigrain import variables_of


def export_checkpoint(
    path: str | Path, destination: str | Path, *, step: int | None = None
) -> int:
    """Write `{model_state, extra: {beta}}` with torch.save; returns the keys written.

    The optimiser's state is not exported: its layout is PyTorch's own.

    Args:
        path: a workdir or a step folder.
        destination: the file to write; must not exist.
        step: which step of a workdir; None is the newest.

    Raises:
        InputError: torch is missing, no such checkpoint, or the file exists.
    """
    torch = _import_torch()
    destination = Path(destination)
    if destination.exists():
        raise InputError(
            f"{destination}: exists already; delete it or choose another name"
        )
    checkpoint = load_checkpoint(path, step=step)
    arrays = export_state_dict(
        variables_of(checkpoint.model), backbone=checkpoint.meta["backbone"]
    )
    content = {
        "model_state": {
            key: torch.from_numpy(np.array(array)) for key, array in arrays.items()
        },
        "extra": {},
    }
    margin = checkpoint.model["params"].get("margin")
    if margin is not None:
        content["extra"]["beta"] = float(margin["beta"])
    destination.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(destination) as file:
        torch.save(content, file)
    return len(arrays)


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is needed to write .pth files and is not installed: "
            "pip install -e '.[convert]'"
        ) from error
    return torch
