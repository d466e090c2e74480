"""Reads a pickle file of plain data, and runs nothing that it names.

A pickle may name any function and have it called. Here only what NumPy's arrays need
is known, and even that is answered by stand-ins, so that none of NumPy's own code runs
on the file's words. What numbers in the file say of sizes and places is compared with
the file before memory is taken.
"""

import io
import os
import pickle
import pickletools
import re
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from multigrain_jax.errors import InputError

MAX_SIDES = 64  # NumPy's
# The largest published ground truth has a hundredth.
MAX_BYTES = 64 << 20
MAX_KEY = 2**60  # above, any number of integers have the same hash
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


# Python's own unpickler whose steps can be looked at, which has no public name.
_Unpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue] - as said


class _PlainUnpickler(_Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The stand-in of a name that arrays need; nothing else."""
        try:
            return KNOWN[module_name, global_name]
        except KeyError as error:
            raise pickle.UnpicklingError(
                f"it names {module_name}.{global_name}, which is no plain data"
            ) from error

    def load_setitem(self) -> None:
        """A key and its value."""
        _require_plain(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Several of them, since the last mark."""
        _require_plain(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """The same, as protocol 0 has it."""
        _require_plain(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """What is in a set, since the last mark."""
        _require_plain(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """As above."""
        _require_plain(self.stack)
        super().load_frozenset()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _require_plain(keys: list[Any]) -> None:
    """Refuse keys whose hash may take for ever: tuples of tuples, and equal ones."""
    for key in keys:
        is_plain = isinstance(key, str | bytes | int | float | None)
        if not is_plain or (isinstance(key, int) and abs(key) >= MAX_KEY):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")


def _require_sizes(data: bytes) -> None:
    """Refuse lengths beyond the end, and numbers of the memo that none can have."""
    for number, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if instruction.name == "LONG_BINPUT" and (argument or 0) > number:
            raise pickle.UnpicklingError(f"entry {argument} of {number} of the memo")


def load_plain_pickle(path: Path) -> Any:
    """What a pickle file of plain data holds.

    Containers, numbers, strings, and arrays of numbers (as `PickledArray`, for
    `np.asarray`). Files of Python 2 too.

    Raises:
        InputError: not such a file, or one that names anything else.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes, more than {MAX_BYTES >> 20} MiB")
            data = file.read()
        _require_sizes(data)
        return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:
        # A broken pickle may raise anything, MemoryError and RecursionError too.
        raise InputError(
            f"{path}: not a pickle file of plain data ({error}); expected containers, "
            "numbers, strings and arrays of numbers, and nothing else is loaded; take "
            "the file anew from those who publish it"
        ) from error
