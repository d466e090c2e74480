"""Tables of results: names from outside do no harm in a spreadsheet."""

import csv

import pytest

from multigrain_jax.workdir import write_table


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
        ("ü\udcff.jpg", "ü\udcff.jpg"),
        (-0.5, "-0.5"),
    ],
)
def test_a_cell_is_written_as_data(tmp_path, cell, written):
    path = tmp_path / "t.csv"
    write_table(path, ("name", "rank"), [(cell, 1)])
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
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
