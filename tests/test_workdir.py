"""Records and tables: whole or as before; names from outside do no harm."""

import csv
import errno
import json
import os

import pytest

from multigrain_jax.files import unescape_name
from multigrain_jax.workdir import (
    MAX_LINE,
    csv_rows,
    escape_names,
    open_csv,
    print_table,
    unescape_names,
    write_config,
    write_results,
    write_table,
)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1.jpg", "'+1.jpg"),
        ("-1.jpg", "'-1.jpg"),
        ("@sum.jpg", "'@sum.jpg"),
        ("\t=1.jpg", "'\t=1.jpg"),
        ('a,b\n"c".jpg', 'a,b\n"c".jpg'),
        ("/photos/=1.jpg", "/photos/=1.jpg"),
        ("ü\udcff.jpg", "ü\\xff.jpg"),
        ("'=1.jpg", "''=1.jpg"),
        ("'1.jpg", "'1.jpg"),
        (-0.5, "-0.5"),
    ],
)
def test_a_cell_is_written_as_data(tmp_path, cell, written):
    path = tmp_path / "t.csv"
    write_table(path, ("name", "rank"), [(cell, 1)])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "rank"], [written, "1"]]


def test_a_table_that_breaks_off_leaves_the_older_one(tmp_path):
    def rows():
        yield "a", 1
        raise KeyboardInterrupt

    path = tmp_path / "t.csv"
    path.write_text("an older one")
    with pytest.raises(KeyboardInterrupt):
        write_table(path, ("name", "rank"), rows())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older one"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("config.json", write_config),
        ("results.json", write_results),
    ],
)
def test_an_older_file_is_replaced_and_not_overwritten(tmp_path, name, write):
    write(tmp_path, {"a": 0.5})
    with (tmp_path / name).open("rb") as reader:
        older = (tmp_path / name).read_bytes()
        write(tmp_path, {"b": 1.5, "c": 2.5})
        assert reader.read() == older != (tmp_path / name).read_bytes()
    (only,) = (tmp_path / name).parent.iterdir()
    assert only == tmp_path / name


@pytest.mark.parametrize("write", [write_config, write_results])
def test_a_full_disk_leaves_the_older_record(tmp_path, monkeypatch, write):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path, {"a": 0.5})
    (path,) = tmp_path.iterdir()
    older = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path, {"b": 1.5})
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(path, older)]


def test_a_record_is_json_whatever_a_config_holds(tmp_path):
    write_config(tmp_path / "new" / "folder", {"path": tmp_path, "size": (1, 2)})
    written = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert written == {"path": str(tmp_path), "size": [1, 2]}


NAMES = ["ü\udcff", "\\xff", "a,b", 'c"d"', "e\nf", "-g", "=h", "i\\j"]


def test_names_of_any_bytes_are_json_and_come_back(tmp_path):
    record = {name: {"paths": NAMES, "n": 1.5} for name in NAMES}
    for write in (write_config, write_results):
        write(tmp_path, record)
    for path in tmp_path.iterdir():
        written = json.loads(path.read_bytes().decode("utf-8"))
        json.dumps(written, ensure_ascii=False).encode("utf-8")
        assert unescape_names(written) == record
        assert written == escape_names(record)


def test_pandas_reads_tables_of_any_names(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    write_table(tmp_path / "t.csv", ("path", "n"), [(n, 1) for n in NAMES])
    read = pandas.read_csv(tmp_path / "t.csv")["path"].tolist()
    plain = [name.removeprefix("'") for name in read]
    assert [unescape_name(name) for name in plain] == NAMES


def test_scores_are_printed_in_a_column(capsys):
    print_table({"test/top1": 0.5, "test/class_map": 1 / 3})
    printed = capsys.readouterr().out
    assert printed == "test/top1        0.500\ntest/class_map   0.333\n"
    print_table({"a": 1.0, "bc": 0.0}, {"a": "right class"})
    assert capsys.readouterr().out == "a    1.000  right class\nbc   0.000\n"


def test_results_tell_how_many_notes_there_are_and_what_was_passed_over(tmp_path):
    write_results(tmp_path, {"top1": 0.5})
    assert json.loads((tmp_path / "results.json").read_text()) == {"top1": 0.5}
    over = "photos: passed over 412 .heic: pip install -e '.[heif]'"
    (tmp_path / "notes.txt").write_text(f"{over}\nphotos/1.jpg: read, end missing\n")
    write_results(tmp_path, {"top1": 0.5})
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"top1": 0.5, "num_notes": 2, "passed_over": [over]}


def test_a_line_of_csv_without_an_end_is_not_read(tmp_path):
    path = tmp_path / "index.csv"
    path.write_text('path,size\n"a\nb",1\nc,2\n')
    with open_csv(path, "r") as file:
        assert list(csv_rows(file)) == [["path", "size"], ["a\nb", "1"], ["c", "2"]]
    with path.open("ab") as file:
        file.truncate(1 << 40)
    for start in ("", "d,3\n" + "e," * MAX_LINE):
        with path.open("rb+") as file:
            file.write(start.encode())
        with open_csv(path, "r") as file, pytest.raises(csv.Error, match="characters"):
            list(csv_rows(file))
