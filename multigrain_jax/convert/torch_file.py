"""Reads the files of torch.save without torch, and without running what they name.

There are two formats: an archive (zip) of a pickle and a record for each storage, and
that of 2019, where the storages follow the pickles. Tensors become arrays over storages
that are read once each, and what a file states is checked against its size before
memory is asked for. TorchScript archives have the same records.
"""

import mmap
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from multigrain_jax.convert.pickle_machine import (
    Attributes,
    ForbiddenName,
    Rules,
    UnreadableError,
    expect,
    read_pickle,
)
from multigrain_jax.convert.torch_tensors import CALLS, Tensors
from multigrain_jax.errors import InputError
from multigrain_jax.remedies import install

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_SPECIAL_TENSOR = re.compile(r"torch\.(_utils\.|_tensor\.|storage\.)?\w+")
_MAX_DEPTH = 100  # of the modules of a TorchScript archive
_MAX_MODULES = 100_000
PLAIN_CLASSES = ("argparse.Namespace",)


def read_torch_file(
    path: str | Path, *, attribute_classes: Sequence[str] = PLAIN_CLASSES
) -> Any:
    """What a file of torch.save holds.

    Mappings of all kinds are `dict`, tensors and parameters arrays (views where the
    tensors were; bfloat16 is that of ml_dtypes), NumPy's arrays `PickledArray`.

    Args:
        path: a file of either format.
        attribute_classes: dotted names of classes, or patterns (`a.b.*`), whose objects
            become `Attributes`, a dictionary of what they hold.

    Raises:
        InputError: damaged, not such a file, or one that asks for anything else.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
            read = _read_archive if is_archive else _read_old
            return read(_File(file), attribute_classes)
    except ForbiddenName as error:
        raise InputError(f"{path}: {_refusal(error.name)}") from error
    except Exception as error:
        # A damaged archive may raise anything.
        reason = str(error)[:200] or type(error).__name__
        raise InputError(
            f"{path}: a file written by torch.save was expected, and reading it failed "
            f"({reason}); is it complete, and is it a weight file?"
        ) from error


def is_torchscript_archive(path: str | Path) -> bool:
    """Whether a file is an archive of modules with their code, not of tensors alone."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
        except Exception:
            # A damaged archive may raise anything; whoever reads it says so.
            return False
    return any(re.fullmatch("[^/]+/constants.pkl", name) for name in names)


def read_torchscript_state(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a TorchScript archive by dotted key; its code is not run.

    Those of the state dict, and any that its modules hold as plain attributes.

    Raises:
        InputError: as of `read_torch_file`, or not an archive of modules.
    """
    content = read_torch_file(path, attribute_classes=("__torch__.*",))
    state: dict[str, np.ndarray] = {}
    waiting = [("", content)]
    for _ in range(_MAX_MODULES):
        prefix, module = waiting.pop()
        if not isinstance(module, Attributes) or prefix.count(".") > _MAX_DEPTH:
            break
        for name, value in module.items():
            if isinstance(value, np.ndarray):
                state[f"{prefix}{name}"] = value
            elif isinstance(value, Attributes):
                waiting.append((f"{prefix}{name}.", value))
        if not waiting:
            return state
    raise InputError(
        f"{path}: a TorchScript archive was expected, found no tree of modules; save "
        "the model with torch.jit.save"
    )


def _refusal(name: str) -> str:
    if name.startswith("__torch__."):
        return (
            f"a TorchScript archive of {name}, expected what torch.save writes; open "
            "it with torch.jit.load and save its state_dict()"
        )
    if _SPECIAL_TENSOR.fullmatch(name):
        return (
            f"it asks for {name}, which is not read here; expected dense tensors of "
            "floats, integers or booleans; make them such with PyTorch "
            f"({install('convert')}), and save them anew"
        )
    return (
        f"refused, since loading it would run code: it asks for {name}, expected "
        "tensors only; save its state_dict() anew"
    )


class _File:
    """An open file, from which in all no more bytes are read than it has."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self._size = os.fstat(file.fileno()).st_size
        self._left = self._size

    def read(self, start: int, num_bytes: int) -> np.ndarray:
        self._left -= num_bytes
        if start + num_bytes > self._size or self._left < 0:
            raise UnreadableError("it states more bytes than it has")
        self.file.seek(start)
        return np.fromfile(self.file, np.uint8, num_bytes)


def _read_archive(file: _File, attribute_classes: Sequence[str]) -> Any:
    with zipfile.ZipFile(file.file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if re.fullmatch("[^/]+/data.pkl", name)]
    if len(pickles) != 1:
        raise UnreadableError(f"{len(pickles)} records data.pkl, expected one")
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> np.ndarray:
        return _read_record(file, entries[folder + name])

    if f"{folder}byteorder" in entries and read("byteorder").tobytes() != b"little":
        raise UnreadableError("its numbers are big-endian, expected little-endian")
    tensors = Tensors(lambda key, *_: read(f"data/{key}"))
    pickled = BytesIO(read("data.pkl").tobytes())
    return read_pickle(pickled, tensors.rules(attribute_classes))


def _read_record(file: _File, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise UnreadableError(
            f"{entry.filename} is compressed or encrypted, which torch.save does not do"
        )
    start = entry.header_offset + _LOCAL_HEADER.size
    header = file.read(entry.header_offset, _LOCAL_HEADER.size)
    signature, *lengths = _LOCAL_HEADER.unpack(header.tobytes())
    if signature != b"PK\x03\x04":
        raise UnreadableError(f"{entry.filename} is not where it is stated to be")
    data = file.read(start + sum(lengths), entry.file_size)
    # 0 is what torch writes if told to leave check sums out.
    if entry.CRC not in (0, zlib.crc32(data.data)):
        raise UnreadableError(f"{entry.filename} is damaged, its check sum is another")
    return data


def _read_old(file: _File, attribute_classes: Sequence[str]) -> Any:
    with mmap.mmap(file.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pickles = cast(IO[bytes], mapped)  # it reads as a file does
        for expected in (_MAGIC, _PROTOCOL):
            if read_pickle(pickles, Rules(CALLS)) != expected:
                raise UnreadableError("it does not begin as such files do")
        if not read_pickle(pickles, Rules(CALLS))["little_endian"]:
            raise UnreadableError("its numbers are big-endian, expected little-endian")
        start = mapped.tell()
        # Where a storage lies depends on the sizes of those before it, which only the
        # pickle states: it is read once for these, and once for the tensors.
        sizes: dict[str, tuple[int, int]] = {}

        def note(key: str, count: int, itemsize: int) -> None:
            sizes[key] = count, itemsize

        read_pickle(pickles, Tensors(note).rules(attribute_classes))
        places: dict[str, int] = {}
        for key in read_pickle(pickles, Rules(CALLS)):
            (count,) = struct.unpack("<q", mapped.read(8))
            if count != sizes[expect(key, str)][0]:
                raise UnreadableError(f"storage {key} has {count} numbers")
            places[key] = mapped.tell()
            mapped.seek(count * sizes[key][1], os.SEEK_CUR)
        mapped.seek(start)

        def load(key: str, count: int, itemsize: int) -> np.ndarray:
            return file.read(places[key], count * itemsize)

        return read_pickle(pickles, Tensors(load).rules(attribute_classes))
