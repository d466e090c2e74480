"""Folders and lists of images, and splits of them by fraction."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_plain_photos
from helpers.sources import described, open_photos

from multigrain_jax.data.sources import folder as folder_index
from multigrain_jax.data.sources.folder import ImageFile, hold_out, split_folders
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError

opened = partial(open_photos, val_fraction=0.25)


def names_of(source, root):
    return set(described(source, root))


@pytest.fixture
def photos(tmp_path):
    names = [f"ant/{i}.png" for i in range(8)] + [f"bee/{i}.png" for i in range(3)]
    return write_plain_photos(tmp_path / "photos", [*names, "cow/0.png"])


def test_a_share_of_every_class_is_held_out_and_nothing_twice(photos, tmp_path):
    train, val = opened(photos, "train"), opened(photos, "val")
    assert np.bincount(val.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(train.labels).tolist() == [6, 2, 1]
    assert train.class_names == val.class_names == ["ant", "bee", "cow"]
    assert not names_of(train, photos) & names_of(val, photos)
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    assert names_of(opened(moved, "val"), moved) == names_of(val, photos)


def test_an_image_more_moves_at_most_one_other():
    files = [ImageFile(f"/d/{i}.jpg", 0) for i in range(40)]
    for number in range(40, 80):
        before = hold_out(files, 0.25, root=Path("/d"))
        files.append(ImageFile(f"/d/{number}.jpg", 0))
        after = hold_out(files, 0.25, root=Path("/d"))
        assert (before != after[:-1]).sum() <= 1
        assert after.sum() == round(0.25 * len(files))


def test_folders_for_validation_are_taken_as_they_are(tmp_path):
    write_plain_photos(tmp_path, ["train/a/0.png", "train/a/1.png", "val/a/2.png"])
    assert len(opened(tmp_path, "train")) == 2
    assert names_of(opened(tmp_path, "val"), tmp_path) == {"val/a/2.png"}


def test_a_test_folder_is_no_class_of_a_part_held_out(tmp_path):
    write_plain_photos(
        tmp_path, [f"train/a/{i}.png" for i in range(4)] + ["test/a/9.png"]
    )
    assert len(opened(tmp_path, "val")) == 1
    assert opened(tmp_path, "train").class_names == ["a"]
    assert names_of(opened(tmp_path, "test"), tmp_path) == {"test/a/9.png"}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAINING", "Valid", "test"),
        ("train", "valid", "Testing"),
    ],
)
@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_parts_are_known_by_their_usual_names_in_any_case(
    tmp_path, capsys, train, val, test, fraction
):
    names = {"train": train, "val": val, "test": test}
    write_plain_photos(tmp_path, [f"{name}/a/0.png" for name in names.values()])
    write_plain_photos(tmp_path, ["docs/0.png"])
    assert sorted(split_folders(tmp_path).values()) == sorted(names)
    for part, name in names.items():
        source = opened(tmp_path, part, val_fraction=fraction)
        assert names_of(source, tmp_path) == {f"{name}/a/0.png"}
        assert source.class_names == ["a"]
        said = f"{name} is taken as '{part}'" in capsys.readouterr().out
        assert said == (name != part)
        assert names_of(opened(tmp_path, name), tmp_path) == {f"{name}/a/0.png"}


def test_two_folders_for_one_part_are_asked_for(tmp_path):
    write_plain_photos(tmp_path, ["train/a/0.png", "Val/a/0.png", "valid/a/0.png"])
    with pytest.raises(InputError, match="no folder 'val', but Val, valid; set the"):
        opened(tmp_path, "val")
    with pytest.raises(InputError, match="no folder 'test', but Val, train, valid"):
        opened(tmp_path, "test")


def test_a_class_may_be_named_like_a_part(tmp_path):
    write_plain_photos(tmp_path, ["Training/0.png", "sleep/0.png", "sleep/1.png"])
    assert split_folders(tmp_path) == {}
    assert opened(tmp_path, "train").class_names == ["Training", "sleep"]
    # Alone, it is the part; and train/ is always one.
    write_plain_photos(tmp_path, ["alone/Training/a/0.png"])
    assert opened(tmp_path / "alone", "train").class_names == ["a"]
    write_plain_photos(tmp_path, ["train/a/0.png"])
    assert opened(tmp_path, "train").class_names == ["a"]


@pytest.mark.parametrize("split", ["Train", "test", "vall", "None"])
@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_a_split_that_is_not_there_is_never_all_images(photos, split, fraction):
    message = f"no split '{split}': .* are 'train' .*, 'val'; set the split to one of"
    with pytest.raises(InputError, match=message):
        opened(photos, split, val_fraction=fraction)
    listing = photos / "list.txt"
    listing.write_text("ant/0.png\nbee/0.png\n")
    with pytest.raises(InputError, match=message):
        opened(photos, split, val_fraction=fraction, list_file=listing)


def test_unlabelled_photos_and_lists_are_split_too(tmp_path):
    write_plain_photos(tmp_path, [f"{i}.png" for i in range(8)])
    assert len(opened(tmp_path, "val")) == 2
    listing = tmp_path / "list.txt"
    lines = [f"{i}.png\t{'odd one' if i % 2 else 'even'}" for i in range(8)]
    listing.write_text("\n".join(lines))
    val = opened(tmp_path, "val", list_file=listing)
    assert val.class_names == ["even", "odd one"]
    assert np.bincount(val.labels).tolist() == [1, 1]


@pytest.fixture
def lists(tmp_path):
    write_plain_photos(tmp_path, [f"{i}.png" for i in range(8)])
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(f"{i}.png\tant" for i in range(6)))
    return folder


def test_a_folder_of_lists_has_one_for_each_split(tmp_path, lists):
    (lists / "val.txt").write_text("6.png\tant\n7.png\tbee")
    train = opened(tmp_path, "train", list_file=lists)
    assert names_of(train, tmp_path) == {f"{i}.png" for i in range(6)}
    assert train.class_names == ["ant"]
    val = opened(tmp_path, "val", list_file=lists)
    assert names_of(val, tmp_path) == {"6.png", "7.png"}
    with pytest.raises(InputError, match=r"test\.txt was expected, found train"):
        opened(tmp_path, "test", list_file=lists)
    with pytest.raises(InputError, match=r"such as \['bee'\]"):
        opened(tmp_path, "val", list_file=lists, class_names=train.class_names)


def test_a_folder_of_lists_without_validation_is_parted(tmp_path, lists):
    train = opened(tmp_path, "train", list_file=lists)
    val = opened(tmp_path, "val", list_file=lists)
    assert len(train) == 4 and len(val) == 2
    assert not names_of(train, tmp_path) & names_of(val, tmp_path)


def test_one_image_of_each_class_cannot_be_split(tmp_path):
    write_plain_photos(tmp_path, ["a/0.png", "b/0.png"])
    with pytest.raises(InputError, match="leaves none for 'val'"):
        opened(tmp_path, "val")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write_plain_photos(tmp_path, ["elsewhere/1.jpg", "data/a/1.jpg"])
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "back").symlink_to(tmp_path / "data")
    source = open_photos(tmp_path / "data")
    assert described(source, tmp_path / "data") == ["a/1.jpg", "b/1.jpg"]


def test_a_list_names_the_files(tmp_path):
    write_plain_photos(tmp_path, ["a/1.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"])
    listing = tmp_path / "list.txt"
    listing.write_text("b/2.jpg\n\n3.jpg\na/1.jpg\n")
    source = open_photos(tmp_path, list_file=listing)
    assert described(source, tmp_path) == ["b/2.jpg", "3.jpg", "a/1.jpg"]
    assert source.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no paths"), ("../a.jpg\n", "outside"), ("/a.jpg\n", "outside")],
)
def test_a_bad_list_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_photos(tmp_path, list_file=tmp_path / "list.txt")


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(InputError, match="one path a line"):
        open_photos(tmp_path, list_file=tmp_path / "list.txt")


def test_a_large_folder_is_listed_once(tmp_path, monkeypatch, cache_home):
    write_plain_photos(tmp_path, ["a/1.jpg", "a/x/1.jpg", "b/1.jpg"])
    monkeypatch.setattr(folder_index, "KEPT_FROM", 3)
    scans = []
    scan = folder_index.scan

    def counted(folder, sieve):
        scans.append(folder)
        return scan(folder, sieve)

    monkeypatch.setattr(folder_index, "scan", counted)
    before = described(open_photos(tmp_path), tmp_path)
    assert described(open_photos(tmp_path), tmp_path) == before
    assert len(scans) == 1
    # A new file, deep in the tree, is noticed; so is a removed one.
    write_plain_photos(tmp_path, ["a/x/2.jpg"])
    assert "a/x/2.jpg" in described(open_photos(tmp_path), tmp_path)
    (tmp_path / "b" / "1.jpg").unlink()
    assert open_photos(tmp_path).class_names == ["a"]
    assert len(scans) == 3
    # A list that cannot be read is made anew.
    (stored,) = (cache_home / "multigrain_jax" / "folders").iterdir()
    stored.write_text(json.dumps({"files": ["a/1.jpg"]})[:-4])
    assert len(open_photos(tmp_path)) == 3
    assert len(scans) == 4


def test_nothing_is_written_into_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "KEPT_FROM", 1)
    write_plain_photos(tmp_path, ["a/1.jpg"])
    open_photos(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "1.jpg"]


def test_a_folder_whose_name_is_no_utf8_is_listed(tmp_path):
    root = tmp_path / "\udcff"
    write_plain_photos(root, ["a/1.png", "a/\udcfe.png"])
    files, names = folder_index.index_folder(
        root, split=None, sieve=Sieve((), "refuse"), instances=None
    )
    assert [file.path for file in files] == [f"{root}/a/1.png", f"{root}/a/\udcfe.png"]
    assert names == ["a"]
