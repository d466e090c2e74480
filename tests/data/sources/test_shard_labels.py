import numpy as np
import pytest

from multigrain_jax.data.sources.shard_index import (
    NAMES,
    NO_LABELS,
    NUMBERS,
    PLACE,
    ShardIndex,
)
from multigrain_jax.data.sources.shard_labels import (
    kind_of_labels,
    number_labels,
    read_class_names,
)
from multigrain_jax.errors import InputError


def index_of(texts, *, names=()):
    """The index of a file whose photos have these labels; None: none."""
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    codes = [-1 if text is None else distinct.index(text) for text in texts]
    return ShardIndex(
        places=np.zeros(len(texts), PLACE),
        labels=np.array(codes, np.int32),
        label_texts=distinct,
        label_kind=kind_of_labels(distinct),
        codec="",
        names=[],
        class_names=list(names),
        remarks=[],
    )


def numbered(*indices, class_names=()):
    labels, names = number_labels(
        indices, class_names=list(class_names), describe=lambda n: f"photo {n}"
    )
    assert labels.dtype == np.int32
    return labels.tolist(), names


def test_the_kind_of_labels_is_seen_in_their_texts():
    assert kind_of_labels([]) == NO_LABELS
    assert kind_of_labels(["1", "-1", "007"]) == NUMBERS
    assert kind_of_labels(["n01440764", "1.5"]) == NAMES
    assert kind_of_labels(["1", "ant"]) == ""


def test_numbers_stay_and_names_are_sorted():
    assert numbered(index_of(["3", None]), index_of(["-1", "1"])) == (
        [3, -1, -1, 1],
        ["0", "1", "2", "3"],
    )
    assert numbered(index_of(["cow", "ant"]), index_of(["bee", None])) == (
        [2, 0, 1, -1],
        ["ant", "bee", "cow"],
    )
    assert numbered(index_of([None, None]), index_of([])) == ([-1, -1], [])


def test_known_names_say_what_the_labels_mean():
    names = ["tench", "goldfish"]
    named = index_of(["1", "0"], names=names)
    assert numbered(named, index_of([], names=["x"]), named) == ([1, 0, 1, 0], names)
    assert numbered(index_of(["b"]), class_names=["b", "a"]) == ([0], ["b", "a"])
    # Those beside the files count before those in them.
    assert numbered(named, class_names=["n1", "n2"])[1] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("indices", "names", "message"),
    [
        ([["1"], ["ant"]], (), r"numbers \('1' of photo 0\) and names \('ant' of phot"),
        ([["0"], ["0", "2"]], ("a", "b"), "photo 2: the label '2' was found, one of"),
        ([["a", "c"]], ("a", "b"), "photo 1: the label 'c'"),
        ([["1000000"]], (), "a number below 1000000, or a name"),
        ([["123456789012345678"]], (), "a number below 1000000, or a name"),
    ],
)
def test_labels_that_are_no_class_are_refused_by_photo(indices, names, message):
    with pytest.raises(InputError, match=message):
        numbered(*map(index_of, indices), class_names=names)


def test_files_that_name_other_classes_are_refused():
    files = index_of(["0"], names=["a", "b"]), index_of(["0"], names=["b", "a"])
    with pytest.raises(InputError, match="file of photo 1 names 2 classes"):
        numbered(*files)


def test_names_are_read_from_a_file_beside(tmp_path):
    assert read_class_names(str(tmp_path)) == []
    (tmp_path / "classes.txt").write_text("ant\nred bee\n\n")
    assert read_class_names(str(tmp_path)) == ["ant", "red bee"]
    (tmp_path / "classes.txt").write_text("ant\nred bee\n", encoding="utf-8-sig")
    (tmp_path / "a.tar").touch()
    assert read_class_names(str(tmp_path / "a.tar")) == ["ant", "red bee"]
    (tmp_path / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(InputError, match="the line 'ant' 2 times"):
        read_class_names(str(tmp_path))
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="reading them failed"):
        read_class_names(str(tmp_path))
