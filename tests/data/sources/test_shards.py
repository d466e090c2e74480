import pytest
from helpers.sources import open_photos

from multigrain_jax.data.sources.shards import (
    find_shards,
    is_of_part,
    part_of,
    photos_of_part,
)
from multigrain_jax.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root, split, suffix=".tar", exclude=(".*",)):
    paths = find_shards(str(root), split, suffix=suffix, exclude=exclude)
    return [path.removeprefix(f"{root}/") for path in paths]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("data/train-00000-of-00294.parquet", "train"),
        ("data/validation-00000-of-00014.parquet", "val"),
        ("data/test-00000-of-00028.parquet", "test"),
        ("imagenet1k-train-0000.tar", "train"),
        ("imagenet1k-validation-00.tar", "val"),
        ("Training/part.0.tar", "train"),
        ("valid/test-0.tar", "val"),
        ("test-photos-train-1.tar", "train"),
        ("constrained-0.tar", None),
        ("0000.tar", None),
    ],
)
def test_a_path_names_its_part_by_a_folder_or_its_last_word(path, part):
    assert part_of(path) == part
    assert [is_of_part(path, name) for name in ("train", "val", "test")] == [
        part == name for name in ("train", "val", "test")
    ]


def test_files_of_a_part_come_in_the_order_of_their_paths(tmp_path, capsys):
    touch(tmp_path, "data/train-1.tar", "data/train-0.tar", "data/val-0.tar")
    touch(tmp_path, "data/.cache/train-7.tar", "README.md", "data/real-0.tar")
    assert found(tmp_path, "train") == ["data/train-0.tar", "data/train-1.tar"]
    assert "2 of 4 files are taken as 'train'" in capsys.readouterr().out
    assert found(tmp_path, "validation") == ["data/val-0.tar"]
    assert found(tmp_path, "real") == ["data/real-0.tar"]
    assert len(found(tmp_path, None)) == 4
    with pytest.raises(InputError, match=r"'test' was expected.*'train' \(2 files\)"):
        found(tmp_path, "test")


def test_without_names_of_parts_all_files_are_train(tmp_path, capsys):
    touch(tmp_path, "0.tar", "1.tar")
    assert found(tmp_path, "train") == ["0.tar", "1.tar"]
    assert "all 2 are taken as 'train'" in capsys.readouterr().out
    with pytest.raises(InputError, match="no split 'val'"):
        found(tmp_path, "val")


def test_a_file_is_a_data_set_of_itself(tmp_path):
    touch(tmp_path, "val-0.tar", "x.tar")
    assert found(tmp_path / "x.tar", "train") == [str(tmp_path / "x.tar")]
    assert found(tmp_path / "val-0.tar", "val") == [str(tmp_path / "val-0.tar")]
    with pytest.raises(InputError, match=r"'train' was expected.*'val' \(1 files\)"):
        found(tmp_path / "val-0.tar", "train")
    with pytest.raises(InputError, match=r"expected a folder of \*\.parquet files"):
        found(tmp_path / "x.tar", "train", ".parquet")


def test_a_compressed_tar_is_refused_among_tars_and_passed_over_beside_others(tmp_path):
    touch(tmp_path, "train-0.parquet", "code.tar.gz", "0.tar")
    assert found(tmp_path, "train", ".parquet") == ["train-0.parquet"]
    with pytest.raises(InputError, match=r"code\.tar\.gz: a compressed tar was found"):
        found(tmp_path, "train")


def test_folders_may_be_deep_and_links_in_circles_are_followed_once(tmp_path):
    deep = "/".join("abcdefghijkl")
    touch(tmp_path / "set", f"{deep}/0.tar", "b/1.tar")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "also").symlink_to(tmp_path / "set" / "b")
    files = [f"{deep}/0.tar", "also/1.tar", "b/1.tar"]
    assert found(tmp_path / "set", None) == files


def test_links_that_double_the_ways_without_an_end_are_refused(tmp_path):
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        for name in ("one", "other"):
            (tmp_path / str(number) / name).symlink_to(tmp_path / str(number + 1))
    touch(tmp_path, "12/0.tar")
    with pytest.raises(InputError, match=r"in more than 1000 ways; remove some"):
        found(tmp_path / "0", None)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="found nothing; give it with"):
        found(tmp_path / "none", "train")
    touch(tmp_path, "a.txt", "b.txt")
    with pytest.raises(InputError, match=r"no \*\.tar files .*found a\.txt, b\.txt"):
        open_photos(tmp_path, "train", source="webdataset")


@pytest.mark.parametrize("split", ["train", None])
def test_a_photo_is_of_the_part_that_its_file_is_of_or_was(tmp_path, split):
    root = tmp_path / "set"

    def is_of(path):
        options = {"suffix": ".tar", "separator": "/", "exclude": ()}
        return photos_of_part(str(root), split, **options)(str(root / path))

    touch(root, "a.tar")
    assert is_of("a.tar/val/1.jpg") and is_of("gone.tar/1.jpg")
    assert not is_of("a.tar") and not is_of("1.jpg") and not is_of("/b.tar/1.jpg")
    assert not is_of(tmp_path / "set2" / "a.tar" / "1.jpg")
    assert is_of("A.TAR/1.jpg")
    root = tmp_path / "folder.tar" / "set"
    touch(root, "a.tar", "b.tar")
    assert is_of("b.tar/1.jpg") and not is_of(root.parent / "b.tar" / "1.jpg")
    root /= "a.tar"
    assert is_of("1.jpg") and not is_of(root.parent / "b.tar" / "1.jpg")
    assert not is_of(f"{root}2.tar/1.jpg")
    root = tmp_path / "set"
    touch(root, "train-0.tar", "val-0.tar")
    assert is_of("train-0.tar/1.jpg") and is_of("train-1.tar/val.jpg")
    assert is_of("val-0.tar/1.jpg") == is_of("val-1.tar/1.jpg") == (split is None)
