"""Pickle files of plain data are read; those that would run something are not."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from multigrain_jax.data.benchmarks import plain_pickle
from multigrain_jax.data.benchmarks.plain_pickle import load_plain_pickle
from multigrain_jax.errors import InputError

ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([1.5, -2], ">f4"),
    np.array([], np.int64),
    np.array([True, False]),
    np.array(7, np.uint8),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back(tmp_path, protocol):
    content = {
        "names": ["ä", "b"],
        "rows": [{"box": (1.5, 2), "easy": array} for array in ARRAYS],
        "more": [None, True, np.float64(2.5), np.int32(-3)],
    }
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_plain_pickle(path)
    assert found["names"] == content["names"]
    assert found["more"] == [None, True, 2.5, -3]
    for row, array in zip(found["rows"], ARRAYS, strict=True):
        assert row["box"] == (1.5, 2)
        value = np.asarray(row["easy"])
        np.testing.assert_array_equal(value, array)
        assert value.dtype == array.dtype


def test_files_of_python_2_come_back(tmp_path):
    # {'a': numpy.array([1, 2])}, its bytes a str, as Python 2 wrote it.
    data = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\n"
        b"ndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08"
        b"cnumpy\ndtype\nq\tU\x02i8q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff"
        b"\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x10\x01\x00\x00\x00\x00\x00\x00"
        b"\x00\x02\x00\x00\x00\x00\x00\x00\x00q\x0ftq\x10bs."
    )
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    np.testing.assert_array_equal(np.asarray(load_plain_pickle(path)["a"]), [1, 2])


class Touch:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, call, *arguments):
        self.answer = (call, arguments)

    def __reduce__(self):
        return self.answer


HOSTILE = {
    "system": lambda path: Touch(os.system, f"touch {path}"),
    "open": lambda path: Touch(open, str(path), "w"),
    "mkdir": lambda path: Touch(os.mkdir, str(path)),
    "eval": lambda path: Touch(eval, f"open({str(path)!r}, 'w')"),
    "bytearray": lambda path: Touch(bytearray, 10),
    "numpy": lambda path: Touch(np.save, str(path), 1),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path, kind, protocol):
    hostile = HOSTILE[kind](tmp_path / "made")
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"gnd": [hostile]}, protocol=protocol))
    with pytest.raises(InputError, match="which is no plain data"):
        load_plain_pickle(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.pkl"]


def test_a_name_alone_is_refused(tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(b"cos\nsystem\n.")
    with pytest.raises(InputError, match=r"names os\.system, which is no"):
        load_plain_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        np.array([None, "a"], dtype=object),
        np.array(["a", "b"]),
        np.zeros(2, [("a", "i4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, content):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="not of numbers"):
        load_plain_pickle(path)


# A list of two lists, each of the same two, 98 deep: its text would have no end.
LISTS = b"]" + b"".join(b"q%c0](h%ch%ce" % (n, n, n) for n in range(1, 99)) + b"q\xf00"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (b"c_codecs\nencode\n(h\xf0tR", "written as no text"),
        (b"cnumpy\ndtype\n(h\xf0tR", "an array of list, not of numbers"),
    ],
)
def test_lists_within_lists_are_not_written_out(tmp_path, call, message):
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x02" + LISTS + call + b".")
    with pytest.raises(InputError, match=message):
        load_plain_pickle(path)


TUPLES = b")" + b"\x85" * 60 + b"N"
SHARED = b"N" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
COUNT = struct.pack("<Q", 1 << 40)
ASKS_FOR_MUCH = {
    "a far memo": (b"Nr\xff\xff\xff\x7f.", "entry 2147483647 of 2 of the memo"),
    "a terabyte of bytes": (b"\x8e" + COUNT + b"abc.", "expected 1099511627776 bytes"),
    "a terabyte to be filled": (b"\x96" + COUNT + b"abc.", "1099511627776 bytes"),
    "a terabyte of text": (b"\x8d" + COUNT + b"abc.", "1099511627776 bytes"),
    "a deep key": (b"}" + TUPLES + b"s.", "a tuple as a key"),
    "an endless hash": (b"}" + SHARED + b"Ns.", "a tuple as a key"),
    "an endless hash among several": (b"}(NN" + SHARED + b"Nu.", "a tuple as a key"),
    "an endless hash of old": (b"(" + SHARED + b"Nd.", "a tuple as a key"),
    "an endless hash in a set": (b"\x8f(" + SHARED + b"\x90.", "a tuple as a key"),
    "a frozen one": (b"(" + SHARED + b"\x91.", "a tuple as a key"),
    "one hash of many": (b"}\x8a\x09" + bytes(8) + b"\x01Ns.", "a int as a key"),
}


@pytest.mark.parametrize("name", ASKS_FOR_MUCH)
def test_what_asks_for_much_is_refused_before_it_is_taken(tmp_path, name):
    content, message = ASKS_FOR_MUCH[name]
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x04" + content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            load_plain_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_huge_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 1 << 20)
    path = tmp_path / "file.pkl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    with pytest.raises(InputError, match="more than 1 MiB"):
        load_plain_pickle(path)


def test_more_sides_than_numpy_has_are_refused(tmp_path):
    data = pickle.dumps(np.arange(6, dtype=np.int16), protocol=2)
    path = tmp_path / "file.pkl"
    path.write_bytes(data.replace(b"K\x06\x85", b"(" + b"K\x01" * 99 + b"t"))
    with pytest.raises(InputError, match="an array of 99 dimensions"):
        load_plain_pickle(path)


def test_a_wrong_shape_is_refused(tmp_path):
    data = pickle.dumps(np.arange(6, dtype=np.int16), protocol=2)
    path = tmp_path / "file.pkl"
    path.write_bytes(data.replace(b"K\x06\x85", b"K\x07\x85"))
    with pytest.raises(InputError, match=r"6 numbers in the shape \(7,\)"):
        load_plain_pickle(path)


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "file.pkl"
    whole = pickle.dumps(ARRAYS)
    for content in (b"", b"\x80", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a pickle file of plain data"):
            load_plain_pickle(path)
    with pytest.raises(InputError, match="No such file"):
        load_plain_pickle(tmp_path / "absent.pkl")
