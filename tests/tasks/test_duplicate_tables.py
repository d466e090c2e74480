"""What the tables of duplicates say, and with which words."""

import json

import numpy as np
import pytest
from helpers.descriptors import read_table

from multigrain_jax.tasks.duplicate_tables import (
    LEFT,
    Pair,
    begin_results,
    write_duplicate_tables,
)


def test_the_tables_name_photos_and_who_found_them(tmp_path):
    paths = {0: "/a/0.jpg", 1: "=1.jpg", 2: "/a/2.jpg", 3: "/a/3.jpg"}
    write_duplicate_tables(
        tmp_path,
        paths=paths,
        groups=[np.array([0, 1, 2])],
        lowest=np.array([0.5], np.float32),
        pairs=iter([Pair(0, 1, 0.75, "network", 3), Pair(0, 2, 1.0, "bytes")]),
        same_bytes={2: 0},
        links={3: 0},
    )
    assert read_table(tmp_path / "links.csv") == [
        {"path": "/a/3.jpg", "link_to": "/a/0.jpg"}
    ]
    groups = read_table(tmp_path / "groups.csv")
    assert [row["path"] for row in groups] == ["/a/0.jpg", "'=1.jpg", "/a/2.jpg"]
    assert [row["same_bytes_as"] for row in groups] == ["", "", "/a/0.jpg"]
    assert {(row["group"], row["lowest_similarity"]) for row in groups} == {
        ("1", "0.5")
    }
    pairs = read_table(tmp_path / "pairs.csv")
    assert [tuple(row.values()) for row in pairs] == [
        ("/a/0.jpg", "'=1.jpg", "0.75", "network", "3"),
        ("/a/0.jpg", "/a/2.jpg", "1.0", "bytes", ""),
    ]


@pytest.mark.parametrize(
    "change",
    [{"database": "workdirs/embed"}, {"pairs": "train_val"}],
)
def test_what_was_found_among_other_photos_is_taken_away(change, tmp_path, capsys):
    settings = {"task": "near_duplicates", "database": "photos", "pairs": "any"}
    for _ in range(2):
        begin_results(tmp_path, settings)
        for name in LEFT:
            (tmp_path / name).touch()
    (tmp_path / "own.txt").touch()
    assert capsys.readouterr().out == ""
    begin_results(tmp_path, settings | change)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["config.json", "own.txt"]
    assert json.loads((tmp_path / "config.json").read_text()) == settings | change
    said = capsys.readouterr().out
    assert (
        f"{tmp_path}: its results were of database photos, pairs any; those of" in said
    )
