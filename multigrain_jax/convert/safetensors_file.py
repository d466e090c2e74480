"""Reads and writes .safetensors files: a length, a header in JSON, the arrays."""

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from multigrain_jax.errors import InputError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8  # of the arrays' bytes
_MAX_HEADER_BYTES = 2**24  # that of a large network has a thousandth


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file by key, and its `__metadata__`.

    Raises:
        InputError: damaged, not such a file, or a type of numbers that is not read.
    """
    try:
        with open(path, "rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > min(file_bytes - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {header_bytes} bytes")
            text = file.read(header_bytes).decode()
            header = json.loads(text, object_pairs_hook=_without_doubles)
            if not isinstance(header, dict):
                raise ValueError(f"a {type(header).__name__} as header")
            metadata = header.pop("__metadata__", {})
            entries = _entries(header, file_bytes - 8 - header_bytes)
            arrays = {
                key: np.fromfile(file, np.uint8, num_bytes).view(dtype).reshape(shape)
                for key, dtype, shape, num_bytes in entries
            }
            return arrays, metadata
    except Exception as error:
        # A damaged header may be wrong in any way.
        reason = str(error)[:200] or type(error).__name__
        raise InputError(
            f"{path}: a safetensors file was expected, and reading it failed "
            f"({reason}); is it complete?"
        ) from error


def write_safetensors(
    file: IO[bytes], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays by key, those of the widest types first, and `__metadata__`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    ordered = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    end = 0
    for key in ordered:
        array = arrays[key]
        begin, end = end, end + array.nbytes
        header[key] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for key in ordered:
        file.write(arrays[key].tobytes())


def _entries(
    header: dict[str, Any], num_bytes: int
) -> list[tuple[str, np.dtype, list[int], int]]:
    """Key, type, shape and bytes in the order of the file, which they fill exactly."""
    entries = []
    end = 0
    for key, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _DTYPES.get(row["dtype"]), row["shape"]
        if dtype is None or len(shape) > 64 or not all(0 <= n < 2**63 for n in shape):
            raise ValueError(f"{key} is not read here: {row['dtype']}, {shape}")
        begin = end
        end += prod(shape) * dtype.itemsize
        if row["data_offsets"] != [begin, end]:
            raise ValueError(f"{key}: {row['data_offsets']}, expected {[begin, end]}")
        entries.append((key, dtype, shape, end - begin))
    if end != num_bytes:
        raise ValueError(f"{num_bytes} bytes of numbers, {end} are described")
    return entries


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found
