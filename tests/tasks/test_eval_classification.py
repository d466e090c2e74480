import json
import shutil
from functools import partial

import numpy as np
import pytest
from helpers.configs import small_eval_config
from PIL import Image

import multigrain_jax
from configs import eval_base
from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.eval_classification import run

make_config = partial(small_eval_config, eval_base.get_config, data={"split": "train"})


def scores_one_by_one(photo_folder, checkpoint, *, mode, exponent):
    """Every photo alone, through the public interface."""
    model = multigrain_jax.load_model(checkpoint, pooling_exponent=exponent)
    names = model.class_names
    right, losses = [], []
    for path in sorted((photo_folder / "train").rglob("*.png")):
        with Image.open(path) as photo:
            pixels = model.preprocess(photo, 48, mode)
        logits = np.asarray(model(pixels[None]).logits[0], np.float64)
        label = names.index(path.parent.name)
        right.append(np.argmax(logits) == label)
        losses.append(np.log(np.exp(logits - logits[label]).sum()))
    return np.mean(right), np.mean(losses)


@pytest.mark.parametrize("mode", ["square", "rect"])
def test_scores_equal_those_of_photos_one_by_one(
    photo_folder, tiny_checkpoint, tmp_path, mode
):
    exponents = (1.0, 2.5, "inf")
    config = make_config(
        photo_folder, tiny_checkpoint, test_mode=mode, pooling_exponent=exponents
    )
    results = run(config, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert json.loads((tmp_path / "config.json").read_text())["test_mode"] == mode
    for exponent in exponents:
        top1, loss = scores_one_by_one(
            photo_folder, tiny_checkpoint, mode=mode, exponent=float(exponent)
        )
        prefix = f"train/p{float(exponent):g}"
        assert results[f"{prefix}/top1"] == pytest.approx(top1)
        assert results[f"{prefix}/cross_entropy"] == pytest.approx(loss, rel=2e-5)
        assert results[f"{prefix}/top5"] == 1


def test_a_probe_asks_the_nearest_other_photo(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint, knn_probe=True)
    config.pooling_exponent = 2.5
    found = run(config, tmp_path)["train/knn_top1"]
    model = multigrain_jax.load_model(tiny_checkpoint, pooling_exponent=2.5)
    paths = sorted((photo_folder / "train").rglob("*.png"))
    pixels = [model.preprocess(Image.open(path), 48, "square") for path in paths]
    descriptors = np.asarray(model(np.stack(pixels)).normalized_embedding)
    right = 0
    for path, descriptor in zip(paths, descriptors, strict=True):
        others = [other for other in range(len(paths)) if paths[other] != path]
        nearest = max(others, key=lambda other: descriptors[other] @ descriptor)
        right += paths[nearest].parent == path.parent
    assert found == pytest.approx(right / len(paths))


def test_a_probe_takes_one_exponent(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint, knn_probe=True)
    config.pooling_exponent = (1.0, 2.0)
    with pytest.raises(InputError, match="knn_probe: found 2 values"):
        run(config, tmp_path)


def test_without_an_exponent_it_is_the_checkpoints(
    photo_folder, tiny_checkpoint, tmp_path
):
    config = make_config(photo_folder, tiny_checkpoint)
    results = run(config, tmp_path)
    _, loss = scores_one_by_one(
        photo_folder, tiny_checkpoint, mode="square", exponent=3.0
    )
    assert results["train/cross_entropy"] == pytest.approx(loss, rel=2e-5)


def checkpoint_of(tiny_checkpoint, place, **meta):
    """The same model with another record of how it was made."""
    model = load_checkpoint(tiny_checkpoint)
    store = CheckpointStore(place)
    store.save(5, model=model.model, meta=model.meta | meta)
    store.close()
    return place


SEARCH = {"test_size": 48, "test_mode": "rect", "pooling_exponent": 2.5}


@pytest.mark.parametrize(
    ("meta", "mode", "exponent", "origin"),
    [
        ({"config": {"test_size": 48}}, "square", 3.0, "as it was trained"),
        (
            {"config": {"test_size": 48, "test_mode": "rect"}},
            "rect",
            3.0,
            "as it was trained",
        ),
        ({"published": {"search": SEARCH}}, "rect", 2.5, "as it was published"),
    ],
)
def test_auto_is_what_the_checkpoint_was_made_for(
    photo_folder, tiny_checkpoint, tmp_path, capsys, meta, mode, exponent, origin
):
    checkpoint = checkpoint_of(tiny_checkpoint, tmp_path / "weights", **meta)
    config = make_config(photo_folder, checkpoint, test_size="auto", test_mode="auto")
    config.pooling_exponent = "auto"
    results = run(config, tmp_path / "w")
    _, loss = scores_one_by_one(photo_folder, checkpoint, mode=mode, exponent=exponent)
    assert results["train/cross_entropy"] == pytest.approx(loss, rel=2e-5)
    taken = f"test_size = 48, test_mode = {mode}, pooling_exponent = {exponent:g}"
    assert f"{taken}: {origin}\n" in capsys.readouterr().out
    written = json.loads((tmp_path / "w" / "config.json").read_text())
    assert (written["test_size"], written["test_mode"]) == (48, mode)


def test_an_unreadable_photo_counts_as_wrong_and_is_listed(
    photo_folder, tiny_checkpoint, tmp_path
):
    folder = tmp_path / "bad" / "train" / "ant"
    shutil.copytree(photo_folder / "train" / "ant", folder)
    config = make_config(tmp_path / "bad", tiny_checkpoint, test_mode="rect")
    before = run(config, tmp_path / "before")["train/top1"]
    # As many again, that nobody can read.
    for path in list(folder.iterdir()):
        path.with_stem(f"bad {path.stem}").write_bytes(b"nothing")
    assert run(config, tmp_path / "out")["train/top1"] == before / 2
    assert "bad 1.png" in (tmp_path / "out" / "skipped.txt").read_text()


def test_all_problems_are_listed_at_once(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(
        photo_folder,
        tiny_checkpoint,
        test_size=31,
        test_mode="round",
        batch_size=9,
        pooling_exponent=(2.0, -1.0),
    )
    config.init_from = None
    with pytest.raises(InputError) as caught:
        run(config, tmp_path)
    for line in (
        "init_from: found nothing",
        "test_size: found 31, expected at least 32",
        "test_mode: found 'round'",
        "batch_size = 9 does not divide over 8 devices",
        "pooling_exponent: found -1.0",
    ):
        assert line in str(caught.value)


def test_another_number_of_classes_is_refused(tiny_checkpoint, photo_folder, tmp_path):
    (tmp_path / "train" / "dog").mkdir(parents=True)
    photo = photo_folder / "train" / "ant" / "0.png"
    (tmp_path / "train" / "dog" / "0.png").write_bytes(photo.read_bytes())
    config = make_config(tmp_path, tiny_checkpoint)
    with pytest.raises(InputError, match="dog"):
        run(config, tmp_path / "out")
