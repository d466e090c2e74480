"""Splits by fraction: deterministic, of every class, the same wherever it lies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.sources.folder import ImageFile, hold_out
from multigrain_jax.data.sources.open import class_statistics, open_source
from multigrain_jax.errors import InputError


def write(root, names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return root


def opened(root, split, **options):
    whole = {"list_file": None, "num_images": None, "local_cache_dir": None}
    return open_source(
        source="folder",
        root=root,
        split=split,
        val_fraction=0.25,
        **(whole | options),
    )


def names_of(source, root):
    return {source.describe(i).removeprefix(f"{root}/") for i in range(len(source))}


@pytest.fixture
def photos(tmp_path):
    names = [f"ant/{i}.png" for i in range(8)] + [f"bee/{i}.png" for i in range(3)]
    return write(tmp_path / "photos", [*names, "cow/0.png"])


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
    write(tmp_path, ["train/a/0.png", "train/a/1.png", "val/a/2.png"])
    assert len(opened(tmp_path, "train")) == 2
    assert names_of(opened(tmp_path, "val"), tmp_path) == {"val/a/2.png"}


def test_a_test_folder_is_no_class_of_a_part_held_out(tmp_path):
    write(tmp_path, [f"train/a/{i}.png" for i in range(4)] + ["test/a/9.png"])
    assert len(opened(tmp_path, "val")) == 1
    assert opened(tmp_path, "train").class_names == ["a"]
    assert names_of(opened(tmp_path, "test"), tmp_path) == {"test/a/9.png"}


def test_another_name_for_validation_is_asked_for(tmp_path):
    write(tmp_path, ["train/a/0.png", "valid/a/0.png"])
    with pytest.raises(InputError, match="no folder 'val', but train, valid"):
        opened(tmp_path, "val")


def test_unlabelled_photos_and_lists_are_split_too(tmp_path):
    write(tmp_path, [f"{i}.png" for i in range(8)])
    assert len(opened(tmp_path, "val")) == 2
    listing = tmp_path / "list.txt"
    lines = [f"{i}.png\t{'odd one' if i % 2 else 'even'}" for i in range(8)]
    listing.write_text("\n".join(lines))
    val = opened(tmp_path, "val", list_file=listing)
    assert val.class_names == ["even", "odd one"]
    assert np.bincount(val.labels).tolist() == [1, 1]


@pytest.fixture
def lists(tmp_path):
    write(tmp_path, [f"{i}.png" for i in range(8)])
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
    write(tmp_path, ["a/0.png", "b/0.png"])
    with pytest.raises(InputError, match="leaves none for 'val'"):
        opened(tmp_path, "val")


def test_statistics_name_the_smallest_and_the_largest_class(photos):
    write(photos, ["loose.png"])
    source = open_source(
        source="folder",
        root=photos,
        split=None,
        list_file=None,
        val_fraction=0.0,
        num_images=None,
        local_cache_dir=None,
    )
    assert class_statistics(source) == (
        "13 images of 3 classes, 1 (of 'cow') to 8 (of 'ant') of each; 1 without a "
        "label"
    )
