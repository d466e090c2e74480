import os
import pickle

import numpy as np
import pytest
from helpers.photos import plain_photo, write_plain_photos
from helpers.sources import described, open_photos

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.open import (
    Subset,
    absent_classes,
    class_listing,
    class_statistics,
)
from multigrain_jax.errors import InputError


def test_a_folder_is_read_class_by_class(tmp_path):
    names = ["train/b/1.jpg", "train/a/2.PNG", "train/a/x/3.webp", "train/b/0.JPEG"]
    write_plain_photos(tmp_path, names)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "a" / ".hidden.jpg").write_bytes(plain_photo())
    source = open_photos(tmp_path, "train")
    assert source.class_names == ["a", "b"]
    assert described(source, tmp_path / "train") == [
        "a/2.PNG",
        "a/x/3.webp",
        "b/0.JPEG",
        "b/1.jpg",
    ]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.labels.dtype == np.int32
    assert source.read(3) == (tmp_path / "train" / "b" / "1.jpg").read_bytes()
    assert source.decoding == VIEWER


def test_a_source_survives_pickling(tmp_path):
    source = open_photos(write_plain_photos(tmp_path, ["a/1.jpg", "b/1.jpg"]))
    copy = pickle.loads(pickle.dumps(source))
    assert described(copy, tmp_path) == ["a/1.jpg", "b/1.jpg"]
    assert copy.read(1) == source.read(1)


def test_without_split_folders_the_whole_folder_is_taken_and_said(tmp_path, capsys):
    write_plain_photos(tmp_path, ["a/1.jpg", "b/1.jpg"])
    assert len(open_photos(tmp_path, "train")) == 2
    assert "'train'" in capsys.readouterr().out
    with pytest.raises(InputError, match="no split 'val'"):
        open_photos(tmp_path, "val")


def test_another_split_is_not_taken_for_a_class(tmp_path):
    write_plain_photos(tmp_path, ["train/a/1.jpg"])
    with pytest.raises(InputError, match=r"no folder 'val', but train"):
        open_photos(tmp_path, "val")


def test_images_without_class_folders_have_no_label(tmp_path):
    source = open_photos(write_plain_photos(tmp_path, ["1.jpg", "2.jpg"]))
    assert source.labels.tolist() == [-1, -1]
    assert source.class_names == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "found nothing"),
        (lambda root: root.write_text(""), "found a file"),
        (lambda root: root.mkdir(), "no files at all"),
        (
            lambda root: [
                (root / "a").mkdir(parents=True),
                (root / "a/x.xcf").touch(),
            ],
            "found a/x.xcf",
        ),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "root")
    with pytest.raises(InputError, match=message):
        open_photos(tmp_path / "root")


def test_labels_can_follow_the_classes_of_training(tmp_path):
    write_plain_photos(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg"])
    write_plain_photos(tmp_path, ["val/a/1.jpg", "val/c/1.jpg", "val/c/2.jpg"])
    names = open_photos(tmp_path, "train").class_names
    source = open_photos(tmp_path, "val", class_names=names)
    assert source.labels.tolist() == [0, 2, 2]
    assert source.class_names == ["a", "b", "c"]
    assert source.read(1) == (tmp_path / "val" / "c" / "1.jpg").read_bytes()
    with pytest.raises(InputError, match=r"\['b'\] are not among"):
        open_photos(tmp_path, "train", class_names=["a", "c"])


def test_num_images_spreads_over_the_set(tmp_path):
    write_plain_photos(tmp_path, [f"{c}/{n}.jpg" for c in "ab" for n in range(5)])
    source = open_photos(tmp_path, num_images=4)
    assert described(source, tmp_path) == ["a/0.jpg", "a/3.jpg", "b/1.jpg", "b/4.jpg"]
    assert len(open_photos(tmp_path, num_images=100)) == 10


def test_a_subset_of_a_subset(tmp_path):
    write_plain_photos(tmp_path, [f"{c}/1.jpg" for c in "abcd"])
    inner = Subset(open_photos(tmp_path), [3, 1, 0])
    outer = Subset(inner, [2, 0])
    assert described(outer, tmp_path) == ["a/1.jpg", "d/1.jpg"]
    assert outer.labels.tolist() == [0, 3]


def test_files_are_copied_at_their_first_read(tmp_path):
    root = write_plain_photos(tmp_path / "slow", ["a/1.jpg", "b/1.jpg"])
    source = open_photos(root, local_cache_dir=tmp_path / "fast")
    first = source.read(0)
    # What is not looked at again is of the same size and time.
    status = (root / "a" / "1.jpg").stat()
    (root / "a" / "1.jpg").write_bytes(bytes(status.st_size))
    os.utime(root / "a" / "1.jpg", ns=(0, status.st_mtime_ns))
    assert pickle.loads(pickle.dumps(source)).read(0) == first
    (root / "b" / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(1)
    # Copies appear whole: nothing partial is left.
    assert [len(p.name) for p in (tmp_path / "fast").glob("*/*")] == [64]


def test_unknown_sources_and_missing_roots_are_refused():
    with pytest.raises(InputError, match="expected one of folder, imagenet"):
        open_photos("x", "train", source="floppy")
    with pytest.raises(InputError, match=r"data\.root"):
        open_photos(None, "train")


def test_classes_are_named_and_those_without_images(tmp_path):
    write_plain_photos(tmp_path, ["ant/0.png", "bee/0.png"])
    source = open_photos(tmp_path)
    assert class_listing(source) == "'ant', 'bee'"
    assert absent_classes(source) == []
    source.class_names = [f"class {number}" for number in range(20_000)]
    assert class_listing(source).endswith("'class 9' and 19990 more")
    assert absent_classes(source) == source.class_names[2:]


def test_statistics_name_the_smallest_and_the_largest_class(tmp_path):
    names = [f"ant/{i}.png" for i in range(8)] + [f"bee/{i}.png" for i in range(3)]
    write_plain_photos(tmp_path, [*names, "cow/0.png", "loose.png"])
    assert class_statistics(open_photos(tmp_path)) == (
        "13 images of 3 classes, 1 (of 'cow') to 8 (of 'ant') of each; 1 without a "
        "label"
    )


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    write_plain_photos(tmp_path, ["a/1.jpg", "a/2.jpg"])
    with (tmp_path / "a" / "2.jpg").open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    for cache in (None, tmp_path / "cache"):
        source = open_photos(tmp_path, local_cache_dir=cache)
        assert len(source.read(0)) > 0
        with pytest.raises(OSError, match="1099511627776 bytes, more than the limit"):
            source.read(1)
    with pytest.raises(OSError, match=r"data\.max_megapixels"):
        open_photos(tmp_path).open(1)
