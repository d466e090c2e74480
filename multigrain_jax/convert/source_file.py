"""Reads weight files of PyTorch users: safely, and without guessing.

A file is one of: the original's checkpoint (`model_state`, `optimizer_state`,
`extra.beta`), a bare state dict of it, or a model zoo's state dict; saved by torch
(old or new format) or as safetensors, which needs no torch.
"""

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from multigrain_jax.errors import InputError

# Classes that checkpoints of 2019 may hold besides tensors: NumPy's scalars, under the
# module names of old and new NumPy. Everything else is refused by torch's unpickler.
_NUMPY_SCALAR_NAMES = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
_NUMPY_DTYPES = (
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
)

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
        content: object = _read_safetensors(path)
    else:
        content = _read_torch(path)
    tensors, beta, kind = _split_content(path, content)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(path, sha256, kind, beta), tensors


def import_torch() -> ModuleType:
    """The torch module, imported only when a file needs it.

    Raises:
        InputError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is needed for .pth files and is not installed: "
            "pip install -e '.[convert]'"
        ) from error
    return torch


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(
            f"{path}: safetensors is not installed: pip install -e '.[convert]'"
        ) from error
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(
            f"{path}: a safetensors file was expected, and reading it failed "
            f"({error}); is it complete?"
        ) from error


def _read_torch(path: Path) -> object:
    torch = import_torch()
    make_scalar, _ = np.float64(0).__reduce__()  # what the pickle of one calls
    scalars = [(make_scalar, name) for name in _NUMPY_SCALAR_NAMES]
    try:
        with torch.serialization.safe_globals([*scalars, *_NUMPY_DTYPES]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted:
            raise InputError(
                f"{path}: refused, since loading it would run code: it asks for "
                f"{wanted[1]}, expected tensors only; save its state_dict() anew"
            ) from error
        raise _unreadable(path, error) from error
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    # What else torch says there is advice, some of it to load the file unsafely.
    reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    reason = re.split(r"\. |\n", reason)[0] or type(error).__name__
    return InputError(
        f"{path}: a file written by torch.save was expected, and reading it failed "
        f"({reason}); is it complete, and is it a weight file?"
    )


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
        elif hasattr(value, "detach"):
            try:
                tensors[str(key)] = value.detach().cpu().numpy()
            except TypeError:  # a dtype that NumPy lacks
                strange.append(f"{key}: {value.dtype}")
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
