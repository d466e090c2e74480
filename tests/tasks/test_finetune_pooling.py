import shutil
from functools import partial

import numpy as np
import pytest
from helpers.configs import small_eval_config
from PIL import Image

import multigrain_jax
from configs import finetune_p
from multigrain_jax.errors import InputError
from multigrain_jax.metric_writer import read_metrics
from multigrain_jax.tasks.finetune_pooling import first_of_each_class, run

make_config = partial(
    small_eval_config,
    finetune_p.get_config,
    data={"val_split": "train"},
    batch_size=4,
    learning_rate=0.5,
    log_every_steps=2,
)


def read_rows(workdir):
    return read_metrics(workdir / "metrics.jsonl")


def test_the_result_carries_the_exponent_that_was_found(
    photo_folder, tiny_checkpoint, tmp_path
):
    results = run(make_config(photo_folder, tiny_checkpoint), tmp_path)
    model = multigrain_jax.load_model(tmp_path)
    assert results["init_pooling_exponent"] == 3.0
    assert model.pooling_exponent == results["pooling_exponent"] != 3.0
    assert model.class_names == ["ant", "bee", "cow"]
    before = multigrain_jax.load_model(tiny_checkpoint, pooling_exponent=2.0)
    images = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype(np.float32)
    after = multigrain_jax.load_model(tmp_path, pooling_exponent=2.0)
    np.testing.assert_array_equal(before(images).logits, after(images).logits)


def test_every_step_and_both_validations_are_on_file(
    photo_folder, tiny_checkpoint, tmp_path
):
    results = run(make_config(photo_folder, tiny_checkpoint), tmp_path)
    rows = read_rows(tmp_path)
    # 18 photos in batches of 4, and a validation at either end.
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 5]
    exponents = [row["train/pooling_exponent"] for row in rows[1:-1]]
    assert exponents[-1] == pytest.approx(results["pooling_exponent"])
    assert len(set(exponents)) == 5
    assert rows[0]["val/cross_entropy"] == results["before/cross_entropy"]
    assert rows[-1]["val/cross_entropy"] == results["after/cross_entropy"]
    # The photos are those that p was fitted to.
    assert results["after/cross_entropy"] < results["before/cross_entropy"]
    assert (tmp_path / "plots" / "pooling_exponent.png").exists()


def test_a_step_is_that_of_its_photos_one_by_one(
    photo_folder, tiny_checkpoint, tmp_path
):
    config = make_config(photo_folder, tiny_checkpoint, batch_size=18)
    run(config, tmp_path)
    (row,) = [
        r for r in read_rows(tmp_path) if r["step"] == 1 and "train/cross_entropy" in r
    ]
    model = multigrain_jax.load_model(tiny_checkpoint)

    losses = []
    for path in sorted((photo_folder / "train").rglob("*.png")):
        with Image.open(path) as photo:
            pixels = model.preprocess(photo, 48, "rect")
        logits = np.asarray(model(pixels[None]).logits[0], np.float64)
        label = model.class_names.index(path.parent.name)
        losses.append(np.log(np.exp(logits - logits[label]).sum()))
    assert row["train/cross_entropy"] == pytest.approx(np.mean(losses), rel=2e-5)


def test_it_starts_where_the_config_says(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(
        photo_folder, tiny_checkpoint, init_pooling_exponent=1.0, learning_rate=0.0
    )
    results = run(config, tmp_path)
    assert results["init_pooling_exponent"] == results["pooling_exponent"] == 1.0


def test_unreadable_photos_do_not_count(photo_folder, tiny_checkpoint, tmp_path):

    copy = tmp_path / "copy"
    shutil.copytree(photo_folder, copy)
    (copy / "train" / "cow" / "9.png").write_bytes(b"nothing")
    config = make_config(photo_folder, tiny_checkpoint, seed=3, batch_size=24)
    want = run(config, tmp_path / "a")["pooling_exponent"]
    config.data.root = str(copy)
    got = run(config, tmp_path / "b")["pooling_exponent"]
    assert got == pytest.approx(want, rel=1e-5)
    assert "9.png" in (tmp_path / "b" / "skipped.txt").read_text()


def test_the_first_images_of_each_class():
    labels = np.array([2, 0, 2, 0, 2, 1, 0])
    assert first_of_each_class(labels, 2).tolist() == [1, 3, 5, 0, 2]
    assert sorted(first_of_each_class(labels, 9)) == list(range(7))


def test_problems_are_listed(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(
        photo_folder,
        tiny_checkpoint,
        test_mode="square",
        pooling_exponent=3.0,
        init_pooling_exponent=-1.0,
        images_per_class=0,
    )
    with pytest.raises(InputError) as caught:
        run(config, tmp_path)
    for line in (
        "expected 'rect'",
        "give the start as init_pooling_exponent",
        "found -1.0",
        "images_per_class: found 0",
    ):
        assert line in str(caught.value)


def test_a_workdir_with_a_result_is_refused(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint)
    config.data.val_split = None
    run(config, tmp_path)
    with pytest.raises(InputError, match="found checkpoints"):
        run(config, tmp_path)
