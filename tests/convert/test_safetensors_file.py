"""Files of safetensors are read as their own library reads them, or refused."""

import json
import random

import ml_dtypes
import numpy as np
import pytest

from multigrain_jax.convert.safetensors_file import (
    read_safetensors,
    write_safetensors,
)
from multigrain_jax.errors import InputError

ARRAYS = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(2, 6),
    "flag": np.array([True, False, True]),
    "half": np.array([1.5, -2], np.float16),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
    "count": np.array(3),
    "none": np.zeros((0, 3), np.int8),
    "double": np.array([[1e-300]]),
    "bytes": np.arange(5, dtype=np.uint8),
}


@pytest.fixture
def file_bytes():
    library = pytest.importorskip("safetensors.numpy")
    return library.save(ARRAYS, metadata={"format": "pt"})


def make_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_arrays_and_metadata_come_back(file_bytes, tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(file_bytes)
    found, metadata = read_safetensors(path)
    assert metadata == {"format": "pt"}
    assert found.keys() == ARRAYS.keys()
    for key, want in ARRAYS.items():
        assert (found[key].dtype, found[key].shape) == (want.dtype, want.shape)
        assert found[key].tobytes() == want.tobytes()
    path.write_bytes(make_file({}))
    assert read_safetensors(path) == ({}, {})


def test_what_is_written_is_read_by_their_own_library(tmp_path):
    library = pytest.importorskip("safetensors")
    path = tmp_path / "file.safetensors"
    with path.open("wb") as file:
        write_safetensors(file, ARRAYS, {"format": "pt"})
    with library.safe_open(path, framework="numpy") as content:
        assert content.metadata() == {"format": "pt"}
        assert set(content.keys()) == ARRAYS.keys()
        for key, want in ARRAYS.items():
            found = content.get_tensor(key)
            assert (found.dtype, found.shape) == (want.dtype, want.shape)
            assert found.tobytes() == want.tobytes()


def row(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "empty": (b"", "a header of 0 bytes"),
    "a long header": (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes"),
    "no JSON": (make_file(b"weights"), "Expecting value"),
    "a list": (make_file(b"[]"), "a list as header"),
    "nested JSON": (make_file(b"[" * 10_000), "recursion"),
    "a key twice": (make_file(b'{"a": 1, "a": 1}'), "a key twice"),
    "cut off": (make_file({"a": row([2], 0, 8)}, bytes(7)), "7 bytes of numbers, 8"),
    "too long": (make_file({"a": row([2], 0, 8)}, bytes(9)), "9 bytes of numbers, 8"),
    "a gap": (make_file({"a": row([1], 4, 8)}, bytes(8)), r"a: \[4, 8\], expected"),
    "an overlap": (
        make_file({"a": row([1], 0, 4), "b": row([1], 0, 4)}, bytes(8)),
        r"\[0, 4\], expected \[4, 8\]",
    ),
    "another size": (make_file({"a": row([2], 0, 4)}, bytes(4)), r"expected \[0, 8\]"),
    "2^60 numbers": (make_file({"a": row([2**60], 0, 2**62)}), "0 bytes of numbers"),
    "a negative side": (make_file({"a": row([-1, -1], 0, 4)}, bytes(4)), "not read"),
    "99 sides": (make_file({"a": row([1] * 99, 0, 4)}, bytes(4)), "not read"),
    "8 bits": (
        make_file({"a": row([4], 0, 4, "F8_E4M3")}, bytes(4)),
        "a is not read here: F8_E4M3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_safetensors(path)


def test_damaged_files_are_read_or_refused(file_bytes, tmp_path):
    path = tmp_path / "file.safetensors"
    rng = random.Random(0)
    num_refused = 0
    for _ in range(300):
        content = bytearray(file_bytes)
        content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(
            content[: rng.choice([None, None, rng.randrange(len(content))])]
        )
        try:
            read_safetensors(path)
        except InputError:
            num_refused += 1
    assert 100 < num_refused < 300
