import numpy as np
import pytest
from scipy.io import savemat

from multigrain_jax.data.sources.imagenet import imagenet_files
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve
from multigrain_jax.errors import InputError

SIEVE = Sieve(DEFAULT_EXCLUDE, "refuse")

IDS = ["n01440764", "n01443537", "n02084071"]


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("split", "folder"),
    [
        ("train", "train"),
        ("train", "ILSVRC2012_img_train"),
        ("val", "val"),
        ("val", "ILSVRC2012_img_val"),
    ],
)
def test_class_folders_are_numbered_by_wordnet_id(tmp_path, split, folder):
    touch(tmp_path, [f"{folder}/{wnid}/{wnid}_1.JPEG" for wnid in reversed(IDS)])
    files, names = imagenet_files(tmp_path, split=split, sieve=SIEVE)
    assert names == IDS
    assert [file.label for file in files] == [0, 1, 2]
    assert [file.path.rsplit("/")[-2] for file in files] == IDS


def write_devkit(folder, truth, *, encoding="utf-8"):
    # As in the devkit: leaves numbered in another order than their ids, inner nodes
    # behind them.
    rows = [(1, IDS[2], 0), (2, IDS[0], 0), (3, IDS[1], 0), (1001, "n00001740", 2)]
    synsets = np.zeros(
        (len(rows), 1),
        [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")],
    )
    for row, (number, wnid, children) in enumerate(rows):
        synsets[row, 0] = (float(number), wnid, "a word", float(children))
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": synsets})
    text = "".join(f"{number}\n" for number in truth)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(
        text, encoding=encoding
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("devkit", [".", "devkit", "ILSVRC2012_devkit_t12/data"])
def test_the_flat_validation_folder_takes_labels_from_the_devkit(
    tmp_path, devkit, encoding
):
    images = [f"val/ILSVRC2012_val_0000000{n}.JPEG" for n in (1, 2, 3, 4)]
    root = tmp_path / "imagenet"
    if devkit != ".":
        touch(root, images)
    write_devkit(root / devkit, [3, 1, 2, 1], encoding=encoding)
    touch(root, images)
    files, names = imagenet_files(root, split="val", sieve=SIEVE)
    assert names == IDS
    assert [file.label for file in files] == [1, 2, 0, 2]
    assert [file.path for file in files] == [str(root / image) for image in images]


def test_a_flat_folder_without_devkit_is_refused(tmp_path):
    touch(tmp_path, ["val/1.JPEG"])
    with pytest.raises(InputError, match=r"no meta\.mat"):
        imagenet_files(tmp_path, split="val", sieve=SIEVE)


def test_labels_for_another_number_of_images_are_refused(tmp_path):
    touch(tmp_path, ["val/1.JPEG"])
    write_devkit(tmp_path / "devkit", [1, 2])
    with pytest.raises(InputError, match="2 labels for 1 images"):
        imagenet_files(tmp_path, split="val", sieve=SIEVE)


def test_other_folder_names_are_refused(tmp_path):
    touch(tmp_path, ["train/cats/1.jpg"])
    with pytest.raises(InputError, match=r"\['cats'\], expected WordNet ids"):
        imagenet_files(tmp_path, split="train", sieve=SIEVE)


def test_missing_splits_say_what_was_found(tmp_path):
    touch(tmp_path, ["photos/1.jpg"])
    with pytest.raises(InputError, match=r"ILSVRC2012_img_train.*photos"):
        imagenet_files(tmp_path, split="train", sieve=SIEVE)
    with pytest.raises(InputError, match="found nothing"):
        imagenet_files(tmp_path / "nowhere", split="train", sieve=SIEVE)


def flat_folder(root, truth):
    (root / "val").mkdir()
    for number in range(2):
        (root / "val" / f"{number}.JPEG").write_bytes(b"")
    write_devkit(root / "devkit", truth)
    return root


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([1, "x"], "1 of 2 lines, such as 'x', are not among"),
        ([1, 99], "such as '99'"),
        ([1, 2, 1], "3 labels for 2 images .* unpack all images"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, truth, message):
    with pytest.raises(InputError, match=message):
        imagenet_files(flat_folder(tmp_path, truth), split="val", sieve=SIEVE)


def test_a_damaged_table_of_classes_is_refused(tmp_path):
    root = flat_folder(tmp_path, [1, 2])
    (root / "devkit" / "meta.mat").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"meta\.mat: the devkit's table .* anew"):
        imagenet_files(root, split="val", sieve=SIEVE)
