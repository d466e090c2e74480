"""Reads weight files of PyTorch users: safely, and without guessing.

A file is one of: the original's checkpoint (`model_state`, `optimizer_state`,
`extra.beta`), a bare state dict of it, or a model zoo's state dict; saved by torch
(old or new format) or as safetensors. No torch is needed for any.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from multigrain_jax.convert.safetensors_file import read_safetensors
from multigrain_jax.convert.torch_file import read_torch_file
from multigrain_jax.errors import InputError

Kind = Literal["reference checkpoint", "reference state dict", "model zoo"]


@dataclass(frozen=True)
class SourceFile:
    """What a weight file is, apart from its arrays.

    Attributes:
        path: the file.
        sha256: digest of its bytes.
        kind: whose it is, and whether it holds more than a state dict.
        beta: the margin's threshold, if the file has one.
    """

    path: Path
    sha256: str
    kind: Kind
    beta: float | None


def read_source_file(path: str | Path) -> tuple[SourceFile, dict[str, np.ndarray]]:
    """Read a weight file: what it is, and its arrays by torch key.

    Raises:
        InputError: no such file, damaged, not a weight file, or a pickle that asks for
            more than tensors (it is not executed; the message says what it wanted).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: a weight file (.pth or .safetensors) was expected, found "
            f"{'a folder' if path.is_dir() else 'nothing'}"
        )
    if path.suffix == ".safetensors":
        content: object = read_safetensors(path)[0]
    else:
        content = read_torch_file(path)
    tensors, beta, kind = _split_content(path, content)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(path, sha256, kind, beta), tensors


def _split_content(
    path: Path, content: object
) -> tuple[dict[str, np.ndarray], float | None, Kind]:
    """Tensors by key, β and the kind of file."""
    beta = None
    kind: Kind = "model zoo"
    if isinstance(content, Mapping) and "model_state" in content:
        kind = "reference checkpoint"
        extra = content.get("extra") or {}
        if "beta" in extra:
            beta = float(extra["beta"])
        content = content["model_state"]
    if not isinstance(content, Mapping) or not content:
        found = "an empty one" if content == {} else type(content).__name__
        raise InputError(
            f"{path}: a state dict was expected, found {found}; save the model's "
            "state_dict(), or {'model_state': …} with it"
        )
    tensors: dict[str, np.ndarray] = {}
    strange = []
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            tensors[str(key)] = value
        else:
            strange.append(f"{key}: {type(value).__name__}")
    if strange:
        listed = "\n  ".join(strange[:20])
        raise InputError(
            f"{path}: tensors of NumPy's dtypes were expected; save these as float32, "
            f"or leave them out:\n  {listed}"
        )
    if kind == "model zoo" and "pool.p" in tensors:
        kind = "reference state dict"
    return tensors, beta, kind
