"""The task `predict`: what the model itself says of each photo, and where it lies."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import read_table
from helpers.photos import CLASS_NAMES, noise_photo
from PIL import Image

import multigrain_jax
from configs import predict
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.tasks.predict import run


@pytest.fixture(scope="module")
def photos(photo_folder, tmp_path_factory):
    """Six photos of each class in a part, one in an album, and one that is none."""
    root = tmp_path_factory.mktemp("predicted") / "photos"
    shutil.copytree(photo_folder, root)
    (root / "album").mkdir()
    noise_photo(7, tint=1).save(root / "album" / "x.png")
    (root / "album" / "bad.png").write_bytes(b"no image")
    return root


def config_for(root, checkpoint, **changes):
    return small_eval_config(predict.get_config, root, checkpoint, **changes)


@pytest.fixture(scope="module")
def predicted(photos, tiny_checkpoint, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("predict") / "run"
    results = run(config_for(photos, tiny_checkpoint, test_mode="rect"), workdir)
    return workdir, results


def test_each_photo_has_the_classes_that_the_model_gives_it_alone(
    predicted, photos, tiny_checkpoint
):
    workdir, _ = predicted
    model = multigrain_jax.load_model(tiny_checkpoint)
    table = read_table(workdir / "predictions.csv")
    assert len(table) == 19
    for row in table:
        with Image.open(row["path"]) as photo:
            pixels = model.preprocess(photo, 48, "rect")
        logits = np.asarray(model(pixels[None]).logits[0], np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-probabilities)
        for rank, number in enumerate(order, start=1):
            assert row[f"class_{rank}"] == CLASS_NAMES[number]
            found = float(row[f"probability_{rank}"])
            assert found == pytest.approx(probabilities[number], abs=1e-5)
        first, second, _ = probabilities[order]
        assert float(row["margin"]) == pytest.approx(first - second, abs=1e-5)
        entropy = -np.sum(probabilities * np.log(probabilities))
        assert float(row["entropy"]) == pytest.approx(entropy, abs=1e-4)
        # Three classes have no fourth best one.
        assert "class_4" not in row
        folder = Path(row["path"]).parent.name
        assert row["folder_class"] == ("" if folder == "album" else folder)


def test_results_say_how_often_folders_agree(predicted):
    workdir, results = predicted
    assert json.loads((workdir / "results.json").read_text()) == results
    rows = [r for r in read_table(workdir / "predictions.csv") if r["folder_class"]]
    right = sum(row["class_1"] == row["folder_class"] for row in rows)
    assert (results["num_images"], results["num_unreadable"]) == (19, 1)
    assert results["num_labelled"] == len(rows) == 18
    assert results["accuracy"] == pytest.approx(right / 18)
    assert results["accuracy_of_best_3"] == 1
    (skipped,) = (workdir / "skipped.txt").read_text().splitlines()
    assert "bad.png" in skipped
    page = (workdir / "report.html").read_text()
    assert "19 photos" in page and "1 photos could not be read" in page


def test_one_photo_is_printed_at_the_checkpoints_size(photos, tmp_path, capsys):
    _, variables = split_model(create_model("tiny", num_classes=7, seed=1))
    store = CheckpointStore(tmp_path / "model")
    made_by = {"test_size": 40, "test_mode": "rect"}
    meta = {"backbone": "tiny", "num_classes": 7, "class_names": list("abcdefg")}
    store.save(1, model=variables, meta={**meta, "config": made_by})
    store.close()
    (tmp_path / "c").mkdir()
    photo = tmp_path / "c" / "one.png"
    shutil.copy(photos / "album" / "x.png", photo)
    config = config_for(photo, tmp_path / "model", test_size=None, batch_size=64)
    results = run(config, tmp_path / "run")
    assert (results["num_images"], results["num_labelled"]) == (1, 1)
    said = capsys.readouterr().out
    assert "at 40 pixels (rect, as it was trained)" in said
    (line,) = [line for line in said.splitlines() if line.startswith(f"{photo}: ")]
    (row,) = read_table(tmp_path / "run" / "predictions.csv")
    assert row["folder_class"] == "c"
    best = [
        f"{row[f'class_{n}']} {float(row[f'probability_{n}']):.1%}" for n in range(1, 6)
    ]
    assert line == f"{photo}: {', '.join(best)}"
    # A photo alone is no batch of 64.
    assert "1 images in 1 batches of 8" in said
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (recorded["test_size"], recorded["test_mode"]) == (40, "rect")


def test_a_model_without_classes_says_what_else_it_can_do(photos, tmp_path):
    _, variables = split_model(create_model("tiny", num_classes=0, seed=1))
    store = CheckpointStore(tmp_path / "model")
    meta = {"backbone": "tiny", "num_classes": 0, "class_names": []}
    store.save(1, model=variables, meta={**meta, "config": None})
    store.close()
    with pytest.raises(InputError, match=r"no classifier .*multigrain search"):
        run(config_for(photos, tmp_path / "model"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": None}, "init_from: found nothing, expected a checkpoint"),
        ({"pooling_exponent": (1.0, 2.0)}, "pooling_exponent: found several"),
        ({"test_mode": "round"}, "test_mode: found 'round'"),
        ({"data": {"root": "/no/photo.jpg"}}, "photo.jpg is not there, expected a ph"),
        ({"test_size": 8}, "test_size: found 8, expected at least 32"),
    ],
)
def test_what_cannot_work_is_refused(
    photos, tmp_path, tiny_checkpoint, changes, message
):
    with pytest.raises(InputError, match=message):
        run(config_for(photos, tiny_checkpoint, **changes), tmp_path / "run")
