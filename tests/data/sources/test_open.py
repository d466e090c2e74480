import json
import pickle

import numpy as np
import pytest
from helpers.photos import plain_photo

from multigrain_jax.data.sources import folder as folder_index
from multigrain_jax.data.sources.open import Subset, open_source
from multigrain_jax.errors import InputError


def write(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
        path.write_bytes(plain_photo(number, kind=kind))
    return root


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def open_folder(root, split=None, **changes):
    options = {
        "source": "folder",
        "list_file": None,
        "val_fraction": 0.0,
        "num_images": None,
        "local_cache_dir": None,
    }
    return open_source(root=root, split=split, **(options | changes))


def described(source, root):
    prefix = f"{root}/"
    return [source.describe(i).removeprefix(prefix) for i in range(len(source))]


def test_a_folder_is_read_class_by_class(tmp_path):
    names = ["train/b/1.jpg", "train/a/2.PNG", "train/a/x/3.webp", "train/b/0.JPEG"]
    write(tmp_path, names)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "a" / ".hidden.jpg").write_bytes(plain_photo())
    source = open_folder(tmp_path, "train")
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
    assert source.apply_exif_orientation


def test_a_source_survives_pickling(tmp_path):
    source = open_folder(write(tmp_path, ["a/1.jpg", "b/1.jpg"]))
    copy = pickle.loads(pickle.dumps(source))
    assert described(copy, tmp_path) == ["a/1.jpg", "b/1.jpg"]
    assert copy.read(1) == source.read(1)


def test_without_split_folders_the_whole_folder_is_taken_and_said(tmp_path, capsys):
    write(tmp_path, ["a/1.jpg", "b/1.jpg"])
    assert len(open_folder(tmp_path, "val")) == 2
    assert "'val'" in capsys.readouterr().out


def test_another_split_is_not_taken_for_a_class(tmp_path):
    write(tmp_path, ["train/a/1.jpg"])
    with pytest.raises(InputError, match=r"no folder 'val', but train"):
        open_folder(tmp_path, "val")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path, ["elsewhere/1.jpg", "data/a/1.jpg"])
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "back").symlink_to(tmp_path / "data")
    source = open_folder(tmp_path / "data")
    assert described(source, tmp_path / "data") == ["a/1.jpg", "b/1.jpg"]


def test_images_without_class_folders_have_no_label(tmp_path):
    source = open_folder(write(tmp_path, ["1.jpg", "2.jpg"]))
    assert source.labels.tolist() == [-1, -1]
    assert source.class_names == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "found nothing"),
        (lambda root: root.write_text(""), "found a file"),
        (lambda root: root.mkdir(), "no files at all"),
        (
            lambda root: [(root / "a").mkdir(parents=True), (root / "a/x.gif").touch()],
            "found a/x.gif",
        ),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "root")
    with pytest.raises(InputError, match=message):
        open_folder(tmp_path / "root")


def test_labels_can_follow_the_classes_of_training(tmp_path):
    write(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg"])
    write(tmp_path, ["val/a/1.jpg", "val/c/1.jpg", "val/c/2.jpg"])
    names = open_folder(tmp_path, "train").class_names
    source = open_folder(tmp_path, "val", class_names=names)
    assert source.labels.tolist() == [0, 2, 2]
    assert source.class_names == ["a", "b", "c"]
    assert source.read(1) == (tmp_path / "val" / "c" / "1.jpg").read_bytes()
    with pytest.raises(InputError, match=r"\['b'\] are not among"):
        open_folder(tmp_path, "train", class_names=["a", "c"])


def test_num_images_spreads_over_the_set(tmp_path):
    write(tmp_path, [f"{c}/{n}.jpg" for c in "ab" for n in range(5)])
    source = open_folder(tmp_path, num_images=4)
    assert described(source, tmp_path) == ["a/0.jpg", "a/3.jpg", "b/1.jpg", "b/4.jpg"]
    assert len(open_folder(tmp_path, num_images=100)) == 10


def test_a_subset_of_a_subset(tmp_path):
    write(tmp_path, [f"{c}/1.jpg" for c in "abcd"])
    inner = Subset(open_folder(tmp_path), [3, 1, 0])
    outer = Subset(inner, [2, 0])
    assert described(outer, tmp_path) == ["a/1.jpg", "d/1.jpg"]
    assert outer.labels.tolist() == [0, 3]


def test_a_list_names_the_files(tmp_path):
    write(tmp_path, ["a/1.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"])
    listing = tmp_path / "list.txt"
    listing.write_text("b/2.jpg\n\n3.jpg\na/1.jpg\n")
    source = open_folder(tmp_path, list_file=listing)
    assert described(source, tmp_path) == ["b/2.jpg", "3.jpg", "a/1.jpg"]
    assert source.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no paths"), ("../a.jpg\n", "outside"), ("/a.jpg\n", "outside")],
)
def test_a_bad_list_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_folder(tmp_path, list_file=tmp_path / "list.txt")


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(InputError, match="one path a line"):
        open_folder(tmp_path, list_file=tmp_path / "list.txt")


def test_files_are_copied_at_their_first_read(tmp_path):
    root = write(tmp_path / "slow", ["a/1.jpg", "b/1.jpg"])
    source = open_folder(root, local_cache_dir=tmp_path / "fast")
    first = source.read(0)
    (root / "a" / "1.jpg").unlink()
    assert pickle.loads(pickle.dumps(source)).read(0) == first
    (root / "b" / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(1)
    # Copies appear whole: nothing partial is left.
    assert [len(p.name) for p in (tmp_path / "fast").glob("*/*")] == [64]


def test_a_large_folder_is_listed_once(tmp_path, monkeypatch, cache_home):
    write(tmp_path, ["a/1.jpg", "a/x/1.jpg", "b/1.jpg"])
    monkeypatch.setattr(folder_index, "KEPT_FROM", 3)
    scans = []
    scan = folder_index.scan

    def counted(folder):
        scans.append(folder)
        return scan(folder)

    monkeypatch.setattr(folder_index, "scan", counted)
    before = described(open_folder(tmp_path), tmp_path)
    assert described(open_folder(tmp_path), tmp_path) == before
    assert len(scans) == 1
    # A new file, deep in the tree, is noticed; so is a removed one.
    write(tmp_path, ["a/x/2.jpg"])
    assert "a/x/2.jpg" in described(open_folder(tmp_path), tmp_path)
    (tmp_path / "b" / "1.jpg").unlink()
    assert open_folder(tmp_path).class_names == ["a"]
    assert len(scans) == 3
    # A list that cannot be read is made anew.
    (stored,) = (cache_home / "multigrain_jax" / "folders").iterdir()
    stored.write_text(json.dumps({"files": ["a/1.jpg"]})[:-4])
    assert len(open_folder(tmp_path)) == 3
    assert len(scans) == 4


def test_nothing_is_written_into_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "KEPT_FROM", 1)
    write(tmp_path, ["a/1.jpg"])
    open_folder(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "1.jpg"]


def test_unknown_sources_and_missing_roots_are_refused():
    with pytest.raises(InputError, match="expected one of folder, imagenet"):
        open_folder("x", "train", source="floppy")
    with pytest.raises(InputError, match=r"data\.root"):
        open_folder(None, "train")
