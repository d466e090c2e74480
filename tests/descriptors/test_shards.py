"""Shards on disk: what is known of them, and what is not what it was."""

import io
import os

import numpy as np
import pytest
from helpers.descriptor_folders import SETTINGS

from multigrain_jax.descriptors.folder import Shard
from multigrain_jax.descriptors.shards import (
    HashingFile,
    ShardFile,
    shard_problem,
    size_problem,
    unknown_shard,
)
from multigrain_jax.errors import InputError
from multigrain_jax.files import file_digest

ARRAY = np.arange(12, dtype=np.float16).reshape(4, 3)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shard-00000.npy"
    np.save(path, ARRAY)
    return path


def test_what_is_written_is_digested_on_the_way(path):
    plain = io.BytesIO()
    file = HashingFile(plain)
    np.save(file, ARRAY)
    assert plain.getvalue() == path.read_bytes()
    assert (file.size, file.digest()) == (path.stat().st_size, file_digest(path))


def test_what_an_unknown_shard_holds_is_found_out(path):
    known = unknown_shard(path, SETTINGS)
    assert known == Shard(4, path.stat().st_size, file_digest(path))
    shard = ShardFile(path, known, SETTINGS)
    assert (shard.shape, shard.dtype) == ((4, 3), np.float16)
    np.testing.assert_array_equal(shard.open(), ARRAY)
    np.testing.assert_array_equal(ShardFile(path).open(), ARRAY)
    reason = unknown_shard(path, SETTINGS._replace(dim=4))
    assert reason == "float16 of width 3"


def test_a_digest_is_compared_once_when_the_shard_is_first_read(path):
    known = unknown_shard(path, SETTINGS)
    read, unread = (ShardFile(path, known, SETTINGS) for _ in range(2))
    read.open()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    read.open()
    with pytest.raises(InputError, match="its content has changed"):
        unread.open()
    assert size_problem(path, known) is None
    assert shard_problem(path, known) == "its content has changed since it was written"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', }"],
)
def test_files_that_are_no_shards_are_named(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"shard-00000\.npy: .*; run `embed` there"):
        ShardFile(path)
    reason = unknown_shard(path, SETTINGS)
    assert isinstance(reason, str) and "\n" not in reason
    path.unlink()
    assert unknown_shard(path, SETTINGS) == "No such file or directory"


def test_a_pipe_in_the_place_of_a_shard_is_named(tmp_path):
    os.mkfifo(tmp_path / "shard.npy")
    assert "a pipe" in unknown_shard(tmp_path / "shard.npy", SETTINGS)
