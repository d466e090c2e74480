"""The recipe for one's own photos: labelled, split by fraction, or without labels."""

import json
import shutil

import pytest
from helpers.configs import SHORT_TRAINING
from helpers.descriptors import read_table
from helpers.photos import write_noise_photos

from configs import folder
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.watchdog import never
from multigrain_jax.errors import InputError
from multigrain_jax.inference import load_model
from multigrain_jax.tasks.train import run


def make_config(root, weight):
    config = folder.get_config(weight)
    config.update({**SHORT_TRAINING, "data": {"root": str(root)}})
    return config


def write_photos(root, folders):
    return write_noise_photos(root, folders, count=8)


def test_a_folder_without_parts_becomes_a_model_and_a_page(tmp_path, capsys):
    root = write_photos(tmp_path / "photos", ["kiwi", "plum"])
    results = run(make_config(root, "0.5"), tmp_path / "w")
    printed = capsys.readouterr().out
    assert "train: 14 images of 2 classes, 7 of each" in printed
    assert "val: 2 images of 2 classes" in printed
    assert load_model(tmp_path / "w").class_names == ["kiwi", "plum"]
    assert 0 <= results["val/top1"] <= 1
    assert "scores of the 2 photos of val:\nval/top1 " in printed
    assert "looked at on the way" not in printed
    # One photo of each class is held out: it has no other one to find.
    assert "val: 2 of 2 photos are alone in their class" in printed
    assert not {"val/knn_top1", "val/class_map"} & results.keys()
    assert "plum" in (tmp_path / "w" / "report.html").read_text()


def test_photos_of_val_that_were_trained_on_are_told(tmp_path, capsys):
    root = write_noise_photos(tmp_path / "photos", ["train/a", "train/b"], count=6)
    for name, copied in (("a", "0.png"), ("b", "3.png")):
        (root / "val" / name).mkdir(parents=True)
        shutil.copy(root / "train" / name / copied, root / "val" / name / "x.png")
    results = run(make_config(root, "0.5"), tmp_path / "w")
    assert results["val/leaks"] == 1
    assert "2 photos of val have a near duplicate in train" in capsys.readouterr().out
    for row in read_table(tmp_path / "w" / "leaks.csv"):
        similarity = float(row["similarity"])
        assert row["path"].endswith("/x.png") and similarity == pytest.approx(1)


def test_every_pass_reads_as_the_config_says(tmp_path, readings):
    config = make_config(write_photos(tmp_path / "photos", ["kiwi", "plum"]), "0.5")
    config.update({"num_workers": 3, "prefetch_batches": 5, "data_timeout_s": 77.0})
    run(config, tmp_path / "w")
    # Validation before and after training, and the report: photos, copies, leaks.
    passes = ["validation", "training", "validation", "photos", "copies", "leaks"]
    # Training itself is given up where it is asked to stop.
    found = [reading._replace(give_up=never) for reading in readings]
    assert found == [Reading(3, 5, 77.0)] * len(passes)


def test_photos_without_labels_train_on_the_margin_alone(tmp_path):
    root = write_photos(tmp_path / "photos", ["."])
    results = run(make_config(root, "0"), tmp_path / "w")
    copies = {"recall_at_1", "map", "threshold_at_p90"}
    assert results.keys() == {*(f"val/copy_{name}" for name in copies), "seconds"}
    rows = (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()
    losses = [row for row in map(json.loads, rows) if "train/loss" in row]
    assert losses and all(
        row["train/loss"] == row["train/margin"] > 0 for row in losses
    )
    page = (tmp_path / "w" / "report.html").read_text()
    assert "no labels" in page and "✓ right" not in page


@pytest.mark.parametrize("folders", [["."], [".", "a", "b"]])
def test_photos_without_labels_are_refused_by_the_joint_loss(tmp_path, folders):
    root = write_photos(tmp_path / "photos", folders)
    with pytest.raises(InputError, match=r"7 of \d+ images have no label"):
        run(make_config(root, "0.5"), tmp_path / "w")


def test_fewer_classes_than_the_images_have_are_refused(tmp_path):
    root = write_photos(tmp_path / "photos", ["a", "b", "c"])
    config = make_config(root, "0.5")
    config.num_classes = 2
    with pytest.raises(InputError, match="found 2, and the images have 3 classes"):
        run(config, tmp_path / "w")
