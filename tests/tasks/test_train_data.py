"""The images of a training run: what is said of them, and what is refused."""

import numpy as np
import pytest
from helpers.photos import write_plain_photos

from configs import folder
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.train_data import open_train_data, refuse_images


def config(root, **changes):
    values = folder.get_config().to_dict()
    values["data"]["root"] = str(root)
    for key, value in changes.items():
        (values["data"] if key in values["data"] else values)[key] = value
    return values


def photos(root, *names, count=4):
    return write_plain_photos(
        root, [f"{n}/{i}.png" for n in names for i in range(count)]
    )


def test_what_there_is_is_said(tmp_path, capsys):
    photos(tmp_path, "train/ant", "train/bee", "train/cow", "val/ant", "val/cow")
    data = open_train_data(config(tmp_path))
    assert data.val is data.report is not None
    assert len(data.train) == 12 and len(data.val) == 8
    assert capsys.readouterr().out.split("\n") == [
        "train: 12 images of 3 classes, 4 of each",
        "classes: 'ant', 'bee', 'cow'",
        "val: 8 images of 2 classes, 4 of each",
        "val: no image of 1 of the classes of training, such as ['bee']",
        "",
    ]


def test_none_is_no_part_at_all(tmp_path):
    root = photos(tmp_path, "ant", "bee")
    data = open_train_data(config(root, val_split=None, report_split=None))
    assert (data.val, data.report) == (None, None)
    assert len(data.train) == 6
    data = open_train_data(config(root, val_split=None, report_split="val"))
    assert data.val is None and data.report is not None and len(data.report) == 2
    # All of it: nothing is held out of what is no part.
    everything = config(root, split=None, val_split=None, report_split=None)
    assert len(open_train_data(everything).train) == 8


def test_one_image_of_each_class_can_be_trained_on(tmp_path):
    root = photos(tmp_path, "ant", "bee", count=1)
    with pytest.raises(InputError, match=r"val_split=None and --config\.report_split"):
        open_train_data(config(root))
    data = open_train_data(config(root, val_split=None, report_split=None))
    assert data.train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("key", ["val_split", "report_split"])
def test_a_part_that_is_missing_is_missed_before_the_training(tmp_path, key):
    root = photos(tmp_path, "train/ant", "train/bee", "val/ant")
    with pytest.raises(InputError, match="no folder 'test', but train, val"):
        open_train_data(config(root, **{key: "test"}))


def test_classes_that_training_lacks_are_named(tmp_path):
    root = photos(tmp_path, "train/ant", "train/bee", "val/ant", "val/cow", "val/dog")
    with pytest.raises(InputError, match=r"2 classes .* such as \['cow', 'dog'\]"):
        open_train_data(config(root))


def test_one_class_is_nothing_to_learn_from(tmp_path):
    root = photos(tmp_path, "animals/ant", "animals/bee")
    inner = root / "animals"
    with pytest.raises(InputError, match=rf"one class, 'animals'.*root={inner}; else"):
        open_train_data(config(root))
    assert open_train_data(config(inner)).train.class_names == ["ant", "bee"]
    alone = photos(tmp_path / "alone", "ant")
    with pytest.raises(InputError, match=r"class, 'ant', .* right\); give a folder"):
        open_train_data(config(alone, classification_weight=1.0))
    without = config(alone, classification_weight=0.0)
    assert len(open_train_data(without).train) == 3


def source_of(labels, num_classes):
    files = [ImageFile(f"/photos/{i}.jpg", label) for i, label in enumerate(labels)]
    return FileSource(
        files,
        class_names=[f"class {number}" for number in range(num_classes)],
        decoding=VIEWER,
        local_cache_dir=None,
    )


@pytest.mark.parametrize(
    "source",
    [
        source_of([0] * 10_000 + [1], 2),
        source_of(np.arange(20_000), 20_000),
        source_of([0, 1], 2),
    ],
    ids=["one to ten thousand", "20 000 classes", "one image of each"],
)
def test_unusual_data_sets_are_no_mistakes(source):
    refuse_images(config("/photos"), source)
    refuse_images(config("/photos", num_classes=50_000), source)


def test_labels_are_to_be_there_and_to_fit():
    with pytest.raises(InputError, match="1 of 2 images have no label"):
        refuse_images(config("/photos"), source_of([0, -1], 1))
    with pytest.raises(InputError, match="found 2, and the images have 3 classes"):
        refuse_images(config("/photos", num_classes=2), source_of([0, 1, 2], 3))
    refuse_images(config("/photos", classification_weight=0.0), source_of([-1, -1], 0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the margin loss alone is"),
        ({"instance_loss": "infonce"}, "InfoNCE alone is"),
        ({"koleo_weight": 0.1}, "the margin loss and KoLeo are"),
        ({"instance_loss": "infonce", "koleo_weight": 1.0}, "InfoNCE and KoLeo are"),
    ],
)
def test_what_is_trained_without_labels_is_named(tmp_path, capsys, changes, said):
    root = write_plain_photos(tmp_path, [f"{number}.png" for number in range(3)])
    changes |= {"classification_weight": 0.0, "val_fraction": 0.0, "val_split": None}
    open_train_data(config(root, **changes, report_split=None))
    expected = f"no labels: {said} trained, and there is no validation\n"
    assert capsys.readouterr().out.endswith(expected)


def test_one_instance_is_nothing_to_compare(tmp_path):
    one = source_of([-1], 0)
    without = {"classification_weight": 0.0}
    said = r"^found one instance in all, the first of its photos is /photos/0\.jpg, exp"
    with pytest.raises(InputError, match=said):
        refuse_images(config("/photos", **without), one)
    two = source_of([0, 1], 2)
    two.instances = np.zeros(2, np.int32)
    known = {"instances": "1"}
    with pytest.raises(InputError, match=r"data\.instances = '1': found one .*another"):
        refuse_images(config("/photos", **known), two)
    # Cross-entropy alone compares classes.
    refuse_images(config("/photos", **known, classification_weight=1.0), two)
    spread = {"classification_weight": 1.0, "koleo_weight": 0.1}
    with pytest.raises(InputError, match="found one instance in all"):
        refuse_images(config("/photos", **known, **spread), two)


def test_known_instances_are_told_and_missed(tmp_path, capsys):
    names = [f"train/{name}.png" for name in ("a/x/1", "a/x/2", "a/y/1", "b/1", "b/2")]
    root = write_plain_photos(tmp_path / "photos", names)
    whole = {"val_fraction": 0.0, "val_split": None, "report_split": None}
    source = open_train_data(config(root, **whole, instances="2")).train
    assert source.instances.tolist() == [0, 0, 1, 2, 3]
    assert "instances: 1 with 2 to 2 photos, 3 with one\n" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"'3': no two of the 5 photos .*a/x/1\.png"):
        open_train_data(config(root, **whole, instances="3"))
    parted = {"val_split": None, "report_split": None, "instances": "1"}
    open_train_data(config(root, **parted))
    assert "on both sides of data.val_fraction" in capsys.readouterr().out


def test_instances_are_counted_by_the_photos_that_are_trained_on(tmp_path, capsys):
    names = [f"ant/{n}.png" for n in range(5)] + [f"{name}/0.png" for name in "bcdefgh"]
    root = write_plain_photos(tmp_path / "photos", names)
    lists = tmp_path / "lists"
    lists.mkdir()
    lines = [f"{name}\tx\tpot of {name[0]}\n" for name in names]
    (lists / "train.txt").write_text("".join([*lines[3:8], "ant/0.png\ty\t\n"]))
    (lists / "val.txt").write_text("".join(lines[8:]))
    shared = {"instances": "1", "val_split": None, "report_split": None}
    of_lists = {**shared, "instances": "list", "list_file": str(lists)}
    for changes, several, alone in (
        # The photos 0, 1, 3, 5, 7, 9 and 11.
        ({**shared, "val_fraction": 0.0, "num_images": 7}, 3, 4),
        ({**shared, "val_fraction": 0.4}, 3, 7),
        (of_lists, 2, 4),
        ({**of_lists, "num_images": 4}, 2, 2),
    ):
        open_train_data(config(root, **changes))
        told = f"instances: 1 with {several} to {several} photos, {alone} with one"
        assert told in capsys.readouterr().out
