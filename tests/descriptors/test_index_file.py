"""index.csv: any name is written as UTF-8 and read as it was."""

import csv
import hashlib
import os

import pytest
from helpers.descriptor_folders import embed, stamps

from multigrain_jax.descriptors.folder import OK, Block, ImageStamp, IndexRow, read_head
from multigrain_jax.descriptors.index_file import (
    HEADER,
    block_of,
    blocks_in,
    index_text,
    open_index,
    read_index,
    read_open_index,
)
from multigrain_jax.errors import InputError

NAMES = ('a,"b"\n.jpg', "\udcff\udc80é.jpg", "\\xff.jpg", "-rf", "=1+1", "\\x5c\r")
ROWS = [IndexRow(ImageStamp(name, 1, 2), 0, n, OK) for n, name in enumerate(NAMES)]


def test_lines_are_utf8_and_come_back():
    block, data = block_of(ROWS)
    assert block == Block(len(ROWS), len(data), hashlib.sha256(data).hexdigest())
    data.decode("utf-8")
    assert list(blocks_in(HEADER + data, [block])) == [ROWS]
    cut = list(blocks_in(HEADER + data[:-1], [block]))
    assert cut == [None]


def test_pandas_reads_it(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    (tmp_path / "index.csv").write_bytes(HEADER + block_of(ROWS)[1])
    table = pandas.read_csv(tmp_path / "index.csv", keep_default_na=False)
    assert table["path"].tolist()[1:] == [
        "\\xff\\x80é.jpg",
        "\\x5cxff.jpg",
        "-rf",
        "=1+1",
        "\\x5cx5c\r",
    ]


def test_an_open_index_stays_what_it_was(tmp_path):
    embed(tmp_path, stamps(9))
    head, descriptor = open_index(tmp_path)
    try:
        before = list(read_open_index(descriptor, head, folder=tmp_path))
        assert before == list(read_index(tmp_path, head.num_rows))
        embed(tmp_path, [stamps(9)[0]._replace(size=7), *stamps(12)[2:]])
        assert list(read_open_index(descriptor, head, folder=tmp_path)) == before
        with index_text(descriptor) as file:
            assert len(list(csv.reader(file))) == 10
    finally:
        os.close(descriptor)
    assert read_head(tmp_path).num_rows > head.num_rows


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "cut, edited or damaged"),
        (lambda path: path.write_bytes(b"\xff\x00"), "cut, edited or damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
def test_an_index_that_is_none_is_one_line(tmp_path, damage, message):
    embed(tmp_path, stamps(9))
    damage(tmp_path / "index.csv")
    with pytest.raises(InputError, match=rf"index\.csv: .*{message}.*`embed`") as error:
        open_index(tmp_path)
    assert "\n" not in str(error.value)


def test_too_few_lines_are_not_taken_for_all(tmp_path):
    embed(tmp_path, stamps(9))
    with pytest.raises(InputError, match="9 lines found, 12 expected"):
        list(read_index(tmp_path, 12))
