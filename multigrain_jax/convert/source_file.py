"""Reads weight files of PyTorch users: safely, and without guessing.

A file is one of: the original's checkpoint (`model_state`, `optimizer_state`,
`extra.beta`), a bare state dict of it, or a model zoo's or another script's state dict;
saved by torch (old or new format, TorchScript) or as safetensors. No torch is needed
for any, and its content decides, not its name.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multigrain_jax.convert.architecture import Claim, claims_of
from multigrain_jax.convert.heads.deep_image_retrieval import PCA_CLASSES
from multigrain_jax.convert.heads.readers import ENTRIES
from multigrain_jax.convert.safetensors_file import read_safetensors
from multigrain_jax.convert.torch_file import (
    PLAIN_CLASSES,
    is_torchscript_archive,
    read_torch_file,
    read_torchscript_state,
)
from multigrain_jax.convert.unwrap import bare_key, find_state_dict, shown
from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.errors import InputError

Kind = Literal["reference checkpoint", "reference state dict", "model zoo"]

# How files begin that are taken for weights -> what they are.
_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file by git lfs pull",
    b"<!DOCTYPE html": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
    b"\x89HDF": "an HDF5 file, as Keras writes; expected PyTorch's weights",
    b"\x1f\x8b": "a gzip archive; unpack it first",
}
TORCHSCRIPT_NOTE = "a TorchScript archive: its arrays were read, its code was not run"
_MAX_HEADER = 2**27  # bytes of a header of safetensors: the format's own limit is less


@dataclass(frozen=True)
class SourceFile:
    """What a weight file is, apart from its arrays.

    Attributes:
        path: the file.
        sha256: digest of its bytes.
        kind: whose it is, and whether it holds more than a state dict.
        beta: the margin's threshold, if the file has one.
        inside: names of the containers around the state dict, the outermost first.
        beside: names of what else the file holds, which is not read.
        claims: which network it says it is of, it or the `config.json` beside it.
        entries: what is beside the state dict, of what a descriptor head needs.
        notes: lines that tell how it was read.
    """

    path: Path
    sha256: str
    kind: Kind
    beta: float | None
    inside: tuple[str, ...]
    beside: tuple[str, ...]
    claims: tuple[Claim, ...]
    entries: dict[str, Any]
    notes: tuple[str, ...]


def read_source_file(
    path: str | Path, *, averages: bool = True
) -> tuple[SourceFile, dict[str, np.ndarray]]:
    """Read a weight file: what it is, and its arrays by the file's own keys.

    Args:
        path: the file.
        averages: prefer a running average of the weights, where there is one.

    Raises:
        InputError: no such file, damaged, not a weight file, or a pickle that asks for
            more than tensors (it is not executed; the message says what it wanted).
    """
    path = local_path(path, what="a weight file")
    if not path.is_file():
        raise InputError(
            f"{path}: a weight file (.pth or .safetensors) was expected, found "
            f"{'a folder' if path.is_dir() else 'nothing'}"
        )
    is_torchscript = is_torchscript_archive(path)
    content, metadata = (
        (read_torchscript_state(path), {}) if is_torchscript else _read_content(path)
    )
    found = find_state_dict(content, averages=averages)
    if found is None:
        raise InputError(
            f"{path}: a state dict was expected, found {_what_it_is(content)}; save "
            "the model's state_dict(), or {'model_state': …} with it"
        )
    kind: Kind = "model zoo"
    if any(bare_key(key) == "pool.p" for key in found.tensors):
        is_whole = "model_state" in found.inside
        kind = "reference checkpoint" if is_whole else "reference state dict"
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    source = SourceFile(
        path=path,
        sha256=sha256,
        kind=kind,
        beta=_beta_of(path, content),
        inside=found.inside,
        beside=found.beside,
        claims=claims_of(found.levels, metadata, path.with_name("config.json")),
        entries={
            name: level[name]
            for level in reversed(found.levels)
            for name in ENTRIES
            if name in level
        },
        notes=(TORCHSCRIPT_NOTE,) if is_torchscript else (),
    )
    return source, found.tensors


def _read_content(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file holds, in plain containers with arrays, and its metadata."""
    with path.open("rb") as file:
        start = file.read(32)
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header <= _MAX_HEADER:
        return read_safetensors(path)
    for beginning, what in _OTHER_FILES.items():
        if start.startswith(beginning):
            raise InputError(f"{path}: a weight file was expected, found {what}")
    is_pickle = start.startswith((b"PK", b"\x80"))
    if path.suffix == ".safetensors" and not is_pickle:
        return read_safetensors(path)
    classes = (*PLAIN_CLASSES, *PCA_CLASSES)
    return read_torch_file(path, attribute_classes=classes), {}


def _what_it_is(content: object) -> str:
    """What was found in place of a state dict."""
    for _ in range(2):
        if isinstance(content, Mapping):
            content = content.get("model_state", content)
    if not isinstance(content, Mapping):
        return type(content).__name__
    names = ", ".join(shown(name) for name in list(content)[:4])
    return f"one without tensors ({names}, …)" if content else "an empty one"


def _beta_of(path: Path, content: object) -> float | None:
    extra = content.get("extra") if isinstance(content, Mapping) else None
    if not isinstance(extra, Mapping) or "beta" not in extra:
        return None
    try:
        beta = float(extra["beta"])
    except (TypeError, ValueError):
        beta = math.nan
    if not math.isfinite(beta):
        raise InputError(
            f"{path}: extra.beta: found {shown(extra['beta'])}, expected the margin's "
            "threshold, a number"
        )
    return beta
