import dataclasses
from functools import partial

import numpy as np
import pytest
from helpers.configs import small_eval_config
from PIL import Image

import multigrain_jax
from configs import whiten
from multigrain_jax.checkpoint import load_checkpoint, save_derived
from multigrain_jax.data.eval_batches import plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation import sharing
from multigrain_jax.models.heads import (
    HEAD_KEY,
    DescriptorHead,
    Projection,
    head_to_json,
)
from multigrain_jax.ops.pooling import whitening_input
from multigrain_jax.tasks.whiten import run

FLOOR = 1e-3


make_config = partial(small_eval_config, whiten.get_config, data={"split": "train"})


def embed_photos(photo_folder, checkpoint):
    model = multigrain_jax.load_model(checkpoint)
    outputs = []
    for path in sorted((photo_folder / "train").rglob("*.png")):
        with Image.open(path) as photo:
            pixels = model.preprocess(photo, 48, "rect")
        outputs.append(model(pixels[None]))
    return [np.concatenate(part) for part in zip(*outputs, strict=True)]


def test_the_whitened_checkpoint_does_what_the_formula_says(
    photo_folder, tiny_checkpoint, tmp_path
):
    results = run(make_config(photo_folder, tiny_checkpoint), tmp_path)
    assert (results["num_images"], results["num_skipped"]) == (18, 0)
    assert results["num_components"] == 9
    assert results["folding_error"] < 1e-4
    assert (tmp_path / "plots" / "spectrum.png").exists()
    embedding, _, logits = embed_photos(photo_folder, tiny_checkpoint)
    x = np.asarray(whitening_input(embedding), np.float64)
    covariance = np.cov(x.T)
    whitened, normalized, folded = embed_photos(photo_folder, tmp_path)
    # The signs of the components are free.
    want = (x - x.mean(0)) @ np.linalg.inv(covariance) @ (x - x.mean(0)).T
    np.testing.assert_allclose(whitened @ whitened.T, want, atol=2e-3 * want.max())
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1, atol=1e-5)
    norm = np.sqrt((embedding**2).sum(1, keepdims=True) + 1) + 1e-6
    np.testing.assert_allclose(folded, logits / norm, atol=1e-4 * np.abs(logits).max())
    np.testing.assert_array_equal(np.argsort(folded), np.argsort(logits))


def test_fewer_components_leave_the_classifier_as_it_is(
    photo_folder, tiny_checkpoint, tmp_path, capsys
):
    config = make_config(photo_folder, tiny_checkpoint, num_components=4)
    results = run(config, tmp_path)
    assert "folding_error" not in results
    assert "left unfolded" in capsys.readouterr().out
    _, _, logits = embed_photos(photo_folder, tiny_checkpoint)
    whitened, normalized, same_logits = embed_photos(photo_folder, tmp_path)
    assert whitened.shape == normalized.shape == (18, 4)
    np.testing.assert_allclose(same_logits, logits, rtol=1e-5)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=1e-3)


def test_the_bias_channel_can_be_left_out(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint, include_bias_channel=False)
    assert run(config, tmp_path)["folding_error"] < 1e-4
    whitened, _, _ = embed_photos(photo_folder, tmp_path)
    embedding, _, _ = embed_photos(photo_folder, tiny_checkpoint)
    passed = np.asarray(whitening_input(embedding))[:, -1]
    np.testing.assert_allclose(whitened[:, -1], passed, rtol=1e-5)


def test_scores_before_and_after(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint, report_split="train")
    results = run(config, tmp_path)
    assert results["before/top1"] == results["after/top1"]
    assert 0 <= results["before/copy_map"] <= 1
    assert (tmp_path / "report.html").exists()


def test_the_report_reads_as_the_config_says(
    photo_folder, tiny_checkpoint, tmp_path, readings, monkeypatch
):
    patience = []

    def planned(source, **options):
        patience.append(options["timeout_s"])
        return plan_batches(source, **options)

    monkeypatch.setattr(sharing, "plan_batches", planned)
    config = make_config(photo_folder, tiny_checkpoint, report_split="train")
    config.update({"num_workers": 3, "prefetch_batches": 5, "data_timeout_s": 77.0})
    run(config, tmp_path)
    # The fit, and the reports before and after, each of photos and of copies.
    assert readings == [Reading(3, 5, 77.0)] * 5
    assert patience == [77.0] * 5


def list_config(photo_folder, tiny_checkpoint, tmp_path, names, **changes):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    config = make_config(photo_folder, tiny_checkpoint, **changes)
    config.data.list_file = str(path)
    return config


def names_of(photo_folder):
    paths = sorted((photo_folder / "train").rglob("*.png"))
    return [path.relative_to(photo_folder).as_posix() for path in paths]


def test_missing_files_of_a_list_are_counted_and_listed(
    photo_folder, tiny_checkpoint, tmp_path
):
    names = [*names_of(photo_folder), "train/ant/gone.png"]
    config = list_config(photo_folder, tiny_checkpoint, tmp_path, names)
    results = run(config, tmp_path / "out")
    assert (results["num_images"], results["num_skipped"]) == (18, 1)
    assert "gone.png" in (tmp_path / "out" / "skipped.txt").read_text()


def test_five_images_are_too_few(photo_folder, tiny_checkpoint, tmp_path):
    names = names_of(photo_folder)[:5]
    config = list_config(photo_folder, tiny_checkpoint, tmp_path, names)
    with pytest.raises(InputError, match="5 images found, at least 9 expected"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()
    config.eigenvalue_floor = FLOOR
    assert run(config, tmp_path / "out")["num_images"] == 5


def test_an_empty_list_and_an_empty_folder_are_refused(
    photo_folder, tiny_checkpoint, tmp_path
):
    config = list_config(photo_folder, tiny_checkpoint, tmp_path, [])
    with pytest.raises(InputError, match=r"list\.txt"):
        run(config, tmp_path / "out")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="empty"):
        run(make_config(tmp_path / "empty", tiny_checkpoint), tmp_path / "out")


def test_a_list_of_unreadable_files_is_refused(photo_folder, tiny_checkpoint, tmp_path):
    config = list_config(photo_folder, tiny_checkpoint, tmp_path, ["a.png", "b.png"])
    with pytest.raises(InputError, match="none of the 2 images could be read"):
        run(config, tmp_path / "out")


def test_what_cannot_be_whitened_is_refused(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint)
    run(config, tmp_path)
    with pytest.raises(InputError, match="found checkpoints"):
        run(config, tmp_path)
    config.init_from = str(tmp_path)
    with pytest.raises(InputError, match="whitened already"):
        run(config, tmp_path / "again")
    config = make_config(
        photo_folder,
        tiny_checkpoint,
        num_components=4,
        include_bias_channel=False,
        test_size=31,
    )
    with pytest.raises(InputError) as caught:
        run(config, tmp_path / "again")
    assert "leave one of the two out" in str(caught.value)
    assert "test_size: found 31, expected at least 32" in str(caught.value)


def test_a_model_with_another_networks_head_is_not_whitened(
    photo_folder, tiny_checkpoint, tmp_path
):
    source = load_checkpoint(tiny_checkpoint)
    head = DescriptorHead("sscd", (Projection(5, offset="bias"),))
    arrays = {"projection": np.eye(8, 5, dtype=np.float32), "bias": np.zeros(5, "f4")}
    save_derived(
        tmp_path / "head",
        dataclasses.replace(source, meta={**source.meta, HEAD_KEY: head_to_json(head)}),
        model={**source.model, "head": {"0": arrays}},
        record={},
    )
    config = make_config(photo_folder, tmp_path / "head")
    with pytest.raises(InputError, match="another network's descriptor head"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
