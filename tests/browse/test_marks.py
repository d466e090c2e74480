"""Marks that outlive the server, and can be taken back."""

from types import SimpleNamespace

import pytest

from multigrain_jax.browse.marks import Marks
from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.errors import InputError

NAMES = ("a.jpg", "caf\udce9.jpg", "c\n.jpg")


def make_collection(*, mtime_ns=5):
    stamps = [ImageStamp(f"/p/{name}", 10, mtime_ns) for name in NAMES]
    numbers = {stamp.path: row for row, stamp in enumerate(stamps)}
    return SimpleNamespace(
        row_of=numbers.get, stamp=lambda row: stamps[row], has=lambda row: row != 9
    )


def test_marks_outlive_the_server(tmp_path):
    path = tmp_path / "marks.json"
    marks = Marks(path, make_collection())
    marks.change({0: "keep", 1: "away", 2: "away"})
    marks.change({2: None})
    assert marks.all() == {0: "keep", 1: "away"}
    assert Marks(path, make_collection()).all() == {0: "keep", 1: "away"}
    # Of photos that are others now, nothing was decided.
    assert Marks(path, make_collection(mtime_ns=6)).all() == {}


def test_every_step_is_undone(tmp_path):
    marks = Marks(tmp_path / "marks.json", make_collection())
    states = [marks.all()]
    for change in ({0: "keep"}, {0: "away", 1: "away"}, {0: None}):
        marks.change(change)
        states.append(marks.all())
    for expected in states[-2::-1]:
        assert marks.can_undo
        marks.undo()
        assert marks.all() == expected
    assert not marks.can_undo and marks.undo() == {}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"marks": [["/p/a.jpg", 1, 2, "delete"]]}', '{"marks": 5}'],
)
def test_another_file_is_refused_and_stays(tmp_path, text):
    path = tmp_path / "marks.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"marks\.json: marks of photos were expected"):
        Marks(path, make_collection())
    assert path.read_text() == text
