"""Damaged and hostile files give an error, take little memory and end soon."""

import collections
import contextlib
import io
import os
import pickle
import random
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from helpers.torch_files import dump, tensor, write_new, write_old

from multigrain_jax.convert import pickle_machine
from multigrain_jax.convert.torch_file import read_torch_file
from multigrain_jax.errors import InputError

MEGABYTE = 2**20
MAX_SECONDS = 20  # of this process; a hundred times what is needed


@contextlib.contextmanager
def bounded(num_bytes=8 * MEGABYTE):
    """What is done inside takes at most these bytes, and not long."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < num_bytes
    assert time.process_time() - start < MAX_SECONDS


@pytest.fixture(params=[write_old, write_new])
def write(request, tmp_path):
    """(instructions of the pickle, the bytes of storage 0) -> a file with them."""

    def write(instructions, storage=b"", **rest):
        path = tmp_path / "file.pth"
        request.param(path, instructions, storage, **rest)
        return path

    return write


def test_what_is_written_here_is_read(write):
    numbers = np.arange(6, dtype=np.float32)
    path = write(tensor(6, (2, 2), (1, 2), 1), numbers.tobytes())
    np.testing.assert_array_equal(read_torch_file(path), [[1, 3], [2, 4]])


def test_files_of_python_2_are_read(write):
    old = b"ccollections\nOrderedDict\n(](](U\x05firstK\x01e](U\x04lastI7\neetR}b"
    assert read_torch_file(write(old)) == {"first": 1, "last": 7}


HUGE = 2**60
TOO_LARGE = "does not fit into its storage of 24 bytes"
LAUGHS = b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(1, 99)) + b"q\xf0"
PAIRS = b"(" + dump([("a", 1)] * 9999) + b"tq\xf0"
COPY = b"0ccollections\nOrderedDict\nh\xf0R"
ONE_HASH = b"".join(dump(n * (2**61 - 1)) + b"N" for n in range(20_000))
# What a pickle holds -> its instructions, and what the error says.
HOSTILE = {
    "2^60 numbers": (tensor(HUGE, (HUGE,), (1,)), rf"6 numbers|expected {4 * HUGE}"),
    "2^60 times one": (tensor(6, (HUGE,), (0,)), TOO_LARGE),
    "2^120 and none": (tensor(6, (HUGE, HUGE, 0), (1, 1, 1)), "too big|too large"),
    "a long stride": (tensor(6, (2, 3), (4, 1)), TOO_LARGE),
    "an overlap": (tensor(6, (5, 5), (1, 0)), TOO_LARGE),
    "behind the end": (tensor(6, (6,), (1,), 1), TOO_LARGE),
    "before the start": (tensor(6, (6,), (1,), -1), "out of range"),
    "a negative side": (tensor(6, (-6,), (1,)), "out of range"),
    "backwards": (tensor(6, (6,), (-1,), 5), "out of range"),
    "a side of a float": (tensor(6, (6.0,), (1,)), "a float where a int belongs"),
    "99 sides": (tensor(6, (1,) * 99, (1,) * 99), "99 sides"),
    "a longer storage": (tensor(7, (6,), (1,)), "storage 0 has"),
    "no such storage": (tensor(6, (6,), (1,), key="1"), r"failed \(.*[01]"),
    "no device": (tensor(6, (6,), (1,), device="meta"), "other than a stored tensor"),
    "quantised": (tensor(6, (6,), (1,), kind="QInt8Storage"), r"asks for torch\.QInt8"),
    "complex": (tensor(6, (6,), (1,), kind="ComplexFloatStorage"), "dense tensors"),
    "code": (b"cposix\nsystem\n(X\x04\0\0\0exittR", r"asks for posix\.system"),
    "code of NumPy": (b"cnumpy\nsave\n", r"run code: it asks for numpy\.save"),
    "an old class": (b"(ios\nPathLike\n", "instruction INST, which is not read"),
    "an extension": (b"\x82\x01", "instruction EXT1, which is not read"),
    "an escape": (b"c\x1b[31mos\nsystem\n", r"asks for '\\x1b"),
    "a call of text": (b"X\x01\0\0\0a)R", "a str where a Name belongs"),
    "a call of a type": (b"ctorch\nTensor\n)R", r"a call of torch\.Tensor"),
    "state of a tensor": (tensor(6, (6,), (1,)) + b"}b", "where a dict belongs"),
    "4 GiB of text": (b"X\xff\xff\xff\xffaaaa", "expected 4294967295 bytes"),
    "2 GiB of digits": (b"\x8b\xff\xff\xff\x7faaaa", "not enough data|expected 2147"),
    "text of lists": (LAUGHS + b"c_codecs\nencode\n(h\xf0tR", "written as no text"),
    "type of lists": (LAUGHS + b"cnumpy\ndtype\n(h\xf0tR", "an array of list"),
    "copies": (PAIRS + COPY * 99_999, "over and over"),
    "deep keys": (b"})" + b"\x85" * 9_999 + b"Ns", "a tuple as the key"),
    "keys of one hash": (b"}(" + ONE_HASH + b"u", "a int as the key"),
    "a set of lists": (b"c__builtin__\nset\n(](]etR", "a list as the key"),
    "nothing": (b"", "an unfinished object"),
    "two things": (b"NN", "an unfinished object"),
    "half a list": (b"](K\x01", "an unfinished object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    instructions, message = HOSTILE[name]
    path = write(instructions, bytes(24))
    with bounded(), pytest.raises(InputError, match=message):
        read_torch_file(path)
    assert os.listdir() == ["file.pth"]


OBJECTS = b"cargparse\nNamespace\nq\x010" + b"h\x01)\x81}X\x01\0\0\0a" * 9_999
DTYPES = b"cnumpy\ndtype\nq\x010" + b"h\x01X\x02\0\0\0f8\x85RN" * 9_999
HARMLESS = {
    "deep objects": OBJECTS + b"N" + b"sb" * 9_999,
    "deep types": DTYPES + b"N" + b"\x86b" * 9_999,
    "shared lists": LAUGHS,
    "deep lists": b"]" * 50_000 + b"a" * 49_999,
    "a list in itself": b"]q\x01h\x01a",
    "a far memo": b"Nr\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_strange_pickles_take_no_more_than_they_have(name, write):
    path = write(HARMLESS[name])
    with bounded(64 * MEGABYTE):
        read_torch_file(path)


def test_the_number_of_instructions_is_limited(write, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(InputError, match="more than 1,000 instructions"):
        read_torch_file(write(b"N0" * 1000 + b"N"))


def test_deep_names_of_storages_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    write_old(path, b"N", bytes(8))
    names = pickle.dumps(["0"], protocol=2)
    deep = b"\x80\x02])" + b"\x85" * 99_999 + b"a."
    path.write_bytes(path.read_bytes().replace(names, deep))
    with pytest.raises(InputError, match="a tuple where a str belongs"):
        read_torch_file(path)


def test_numbers_of_the_other_byte_order_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    for write, big in (
        (write_old, {"little_endian": False}),
        (write_new, {"byteorder": "big"}),
    ):
        write(path, tensor(6, (6,), (1,)), bytes(24), **big)
        with pytest.raises(InputError, match="its numbers are big-endian"):
            read_torch_file(path)


def test_compressed_records_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    bomb = bytes(64 * MEGABYTE)
    for compressed in ("file/data.pkl", "file/data/0"):
        with zipfile.ZipFile(path, "w") as archive:
            content = b"\x80\x02" + tensor(len(bomb) // 4, (1,), (1,)) + b"."
            for name, data in (("file/data.pkl", content), ("file/data/0", bomb)):
                is_bomb = name == compressed
                kind = zipfile.ZIP_DEFLATED if is_bomb else zipfile.ZIP_STORED
                archive.writestr(name, data, kind)
        with pytest.raises(InputError, match="compressed or encrypted"):
            read_torch_file(path)


def test_one_record_under_many_names_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    several = [tensor(MEGABYTE, (1,), (1,), key=str(n)) for n in range(4)]
    write_new(path, b"(" + b"".join(several) + b"t", bytes(4 * MEGABYTE))
    with zipfile.ZipFile(path, "a") as archive:
        (entry,) = [e for e in archive.infolist() if e.filename == "file/data/0"]
        for n in range(1, 4):
            same = zipfile.ZipInfo(f"file/data/{n}")
            for field in ("header_offset", "CRC", "file_size", "compress_size"):
                setattr(same, field, getattr(entry, field))
            archive.filelist.append(same)
            archive._didModify = True
    with (
        bounded(16 * MEGABYTE),
        pytest.raises(InputError, match="more bytes than it has"),
    ):
        read_torch_file(path)


def test_a_damaged_record_is_named(torch, tmp_path):
    path = tmp_path / "file.pth"
    numbers = torch.arange(1000.0)
    torch.save(numbers, path)
    content = path.read_bytes()
    inside = content.index(numbers.numpy().tobytes()) + 500
    path.write_bytes(content[:inside] + b"\x7f" + content[inside + 1 :])
    with pytest.raises(InputError, match="file/data/0 is damaged"):
        read_torch_file(path)


def test_files_without_check_sums_are_read(torch, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.arange(10.0), tmp_path / "file.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    found = read_torch_file(tmp_path / "file.pth")
    np.testing.assert_array_equal(found, np.arange(10.0))


def test_kinds_of_tensors_that_are_not_read_are_named(torch, tmp_path):
    ones = torch.ones(2, 2)
    tensors = {
        "_rebuild_sparse_tensor": ones.to_sparse(),
        "_rebuild_meta_tensor_no_storage": ones.to("meta"),
        "ComplexFloatStorage": ones.to(torch.complex64),
        "negated or conj": torch._neg_view(ones),
    }
    for name, value in tensors.items():
        torch.save({"weight": value}, tmp_path / "file.pth")
        with pytest.raises(InputError, match=name):
            read_torch_file(tmp_path / "file.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "file.pth")
    with pytest.raises(
        InputError, match=r"asks for torch\.nn\.modules\.linear\.Linear"
    ):
        read_torch_file(tmp_path / "file.pth")


def mutated(content, rng):
    """The content with a few bytes flipped, cut out, put in, or its end missing."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(max(len(content), 1))
        kind = rng.choice(["flip", "byte", "cut", "insert", "end", "copy"])
        if not content:
            break
        if kind == "flip":
            content[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            content[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == "cut":
            del content[at : at + rng.randrange(1, 20)]
        elif kind == "insert":
            content[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif kind == "end":
            del content[max(at, 1) :]
        else:
            other = rng.randrange(len(content))
            content[at : at + 8] = content[other : other + 8]
    return bytes(content)


def fuzz(torch, path, file_format, count):
    """Read so many mutations of one file; how many were read, how many refused."""
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.BatchNorm2d(16))
    state = {**model.state_dict(), "half": torch.ones(3).bfloat16()}
    state["view"] = torch.arange(12.0).reshape(3, 4).T[1:]
    file = io.BytesIO()
    content = {"model_state": state, "extra": {"beta": np.float64(0.6)}}
    torch.save(content, file, _use_new_zipfile_serialization=file_format == "new")
    rng = random.Random(f"{file_format} {count}")
    counts = collections.Counter()
    for _ in range(count):
        path.write_bytes(mutated(file.getvalue(), rng))
        with bounded(MEGABYTE):
            try:
                read_torch_file(path)
                counts["read"] += 1
            except InputError as error:
                assert str(path) in str(error)
                counts["refused"] += 1
    return counts


@pytest.mark.parametrize("file_format", ["old", "new"])
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_damaged_files_are_read_or_refused(file_format, count, torch, tmp_path):
    counts = fuzz(torch, tmp_path / "file.pth", file_format, count)
    print(f"{count} mutations, format {file_format}: {dict(counts)}")
    assert counts["read"] + counts["refused"] == count
    assert min(counts.values()) > count / 20
