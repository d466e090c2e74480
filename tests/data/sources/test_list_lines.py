"""The lines of a list file: their columns."""

import time

from multigrain_jax.data.sources.folder import read_list_file
from multigrain_jax.data.sources.list_lines import (
    ListLine,
    read_list_lines,
)
from multigrain_jax.data.sources.scan import Sieve


def listed(folder, *lines):
    (folder / "list.txt").write_text("\n".join(lines))
    sieve = Sieve((), "refuse")
    return read_list_lines(folder / "list.txt", root=folder, sieve=sieve)


def read(folder, *lines, instances=None):
    (folder / "list.txt").write_text("\n".join(lines))
    sieve = Sieve((), "refuse")
    path = folder / "list.txt"
    return read_list_file(path, root=folder, sieve=sieve, instances=instances)


def test_spaces_around_columns_do_not_count_and_further_columns_are_passed_over(
    tmp_path,
):
    lines = [
        " 1.jpg \t a class \t a pot \t note 0",
        "2.jpg\ta class\ta pot\tnote 1\tand more",
        "3.jpg\t \ta pot",
        "# a comment\twith\ttabs",
        "4.jpg\ta class\t",
        "5.jpg\ta class\t \tnote",
        "6.jpg",
    ]
    assert listed(tmp_path, *lines) == [
        ListLine(1, "1.jpg", "a class", "a pot"),
        ListLine(2, "2.jpg", "a class", "a pot"),
        ListLine(3, "3.jpg", "", "a pot"),
        ListLine(5, "4.jpg", "a class", ""),
        ListLine(6, "5.jpg", "a class", ""),
        ListLine(7, "6.jpg", "", ""),
    ]
    files, _ = read(tmp_path, *lines, instances="list")
    assert [file.instance for file in files] == ["a pot"] * 3 + [None] * 3


def test_a_path_is_one_however_it_is_spelt(tmp_path):
    ways = ["a/1.jpg", "./a/1.jpg", "a//1.jpg", "a/./1.jpg", f"{tmp_path}/./a/1.jpg"]
    assert {line.path for line in listed(tmp_path, *ways)} == {"a/1.jpg"}
    # So is what its folders name.
    files, classes = read(tmp_path, *ways, instances="1")
    assert set(files) == {(f"{tmp_path}/a/1.jpg", 0, "a")} and classes == ["a"]


def test_long_lists_with_much_to_pass_over_are_read_at_once(tmp_path):
    lines = [f"{prefix}{n}.jpg\tx" for n in range(20_000) for prefix in ("", "._")]
    started = time.process_time()
    found = listed(tmp_path, *lines, *lines)
    assert len(found) == 40_000
    # What compares all lines with each other takes minutes.
    assert time.process_time() - started < 10
