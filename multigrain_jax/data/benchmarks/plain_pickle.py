"""Reads a pickle file of plain data, and runs nothing that it names.

A pickle may name any function and have it called. Here only what NumPy's arrays need
is known, and even that is answered by stand-ins, so that none of NumPy's own code runs
on the file's words.
"""

import pickle
import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.errors import InputError

MAX_SIDES = 64  # NumPy's
NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")


class PickledArray:
    """An array of numbers; `np.asarray` makes it one."""

    def __init__(self) -> None:
        self._array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self._array = _make_array(data, dtype, shape, "F" if is_fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array if dtype is None else self._array.astype(dtype)


class PickledDtype:
    """A type of numbers: its code, then its byte order."""

    def __init__(self, code: Any, *_: Any):
        # The text of anything else may be endless: of lists within lists.
        name = repr(code) if isinstance(code, str) else type(code).__name__
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of {name}, not of numbers")
        self._code = code
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def numpy(self) -> np.dtype:
        """As NumPy has it."""
        return np.dtype(f"{'<' if self._order != '>' else '>'}{self._code}")


def _make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin-1")  # bytes, in a file of Python 2
    if not isinstance(dtype, PickledDtype):
        raise pickle.UnpicklingError("an array without a type")
    if len(shape) > MAX_SIDES:
        raise pickle.UnpicklingError(f"an array of {len(shape)} dimensions")
    sides = tuple(int(side) for side in shape)
    numbers = np.frombuffer(data, dtype.numpy())
    if any(side < 0 for side in sides) or prod(sides) != len(numbers):
        raise pickle.UnpicklingError(f"{len(numbers)} numbers in the shape {sides}")
    return numbers.reshape(sides, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> PickledArray:
    return PickledArray()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _make_array(data, dtype, shape, order)


def _scalar(dtype: Any, data: Any) -> Any:
    return _make_array(data, dtype, (), "C").item()


def _encode(text: Any, _: Any = None) -> bytes:
    """How older protocols write bytes."""
    if not isinstance(text, str):
        raise pickle.UnpicklingError("bytes that are written as no text")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How older protocols write bytes where there are none."""
    return b""


class _ArrayType:
    """`numpy.ndarray`, which files name and do not call."""


KNOWN = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): PickledDtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """The stand-in of a name that arrays need; nothing else."""
        try:
            return KNOWN[module_name, global_name]
        except KeyError as error:
            raise pickle.UnpicklingError(
                f"it names {module_name}.{global_name}, which is no plain data"
            ) from error


def load_plain_pickle(path: Path) -> Any:
    """What a pickle file of plain data holds.

    Containers, numbers, strings, and arrays of numbers (as `PickledArray`, for
    `np.asarray`). Files of Python 2 too.

    Raises:
        InputError: not such a file, or one that names anything else.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="latin-1").load()
    except Exception as error:
        # A broken pickle may raise anything.
        raise InputError(
            f"{path}: not a pickle file of plain data ({error}); expected containers, "
            "numbers, strings and arrays of numbers, and nothing else is loaded; take "
            "the file anew from those who publish it"
        ) from error
