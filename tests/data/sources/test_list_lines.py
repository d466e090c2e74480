"""The lines of a list file: their columns, and photos that are listed twice."""

import time

import pytest
from helpers.sources import described, open_photos

from multigrain_jax.data.sources.folder import read_list_file
from multigrain_jax.data.sources.list_lines import (
    ListLine,
    check_repeated,
    read_list_lines,
)
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError


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


@pytest.mark.parametrize(
    ("second", "said"),
    [("a cup", "of the instance 'a cup'"), ("", "of no instance")],
)
def test_a_photo_of_two_instances_is_refused(tmp_path, second, said):
    lines = ["# pots", "1.jpg\tx\ta pot", "2.jpg\tx\ta cup", f"./1.jpg\tx\t{second}"]
    expected = (
        f"list_file {tmp_path}/list.txt: found '1.jpg' in line 2 of the instance "
        f"'a pot' and in line 4 {said}, expected one instance of a photo"
    )
    with pytest.raises(InputError, match=expected):
        read(tmp_path, *lines, instances="list")
    # The column is read where it is asked for.
    assert len(read(tmp_path, *lines)[0]) == 3


@pytest.mark.parametrize("instances", [None, "list", "1"])
def test_photos_that_are_listed_more_than_once_are_counted(tmp_path, capsys, instances):
    once = ["1.jpg\tx\ta pot", "2.jpg\tx\ta cup", "3.jpg\tx"]
    read(tmp_path, *once, instances=instances)
    assert capsys.readouterr().out == ""
    lines = [*once, "2.jpg\tx\ta cup", "./2.jpg\tx\ta cup", "3.jpg\tx"]
    files, _ = read(tmp_path, *lines, instances=instances)
    assert len(files) == 6
    assert capsys.readouterr().out == (
        f"list_file {tmp_path}/list.txt: 2 of 3 photos are listed more than once, the "
        "first is '2.jpg' in lines 2 and 4\n"
    )


def test_photos_listed_twice_are_said_where_a_source_is_opened(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("1.jpg\ta\n1.jpg\ta\n2.jpg\tb\n")
    source = open_photos(tmp_path, list_file=tmp_path / "list.txt")
    assert described(source, tmp_path) == ["1.jpg", "1.jpg", "2.jpg"]
    assert "1 of 2 photos are listed more than once" in capsys.readouterr().out


def test_long_lists_with_much_to_pass_over_are_read_at_once(tmp_path):
    lines = [f"{prefix}{n}.jpg\tx" for n in range(20_000) for prefix in ("", "._")]
    started = time.process_time()
    found = listed(tmp_path, *lines, *lines)
    check_repeated(tmp_path / "list.txt", found, by_list=True)
    assert len(found) == 40_000
    # What compares all lines with each other takes minutes.
    assert time.process_time() - started < 10
