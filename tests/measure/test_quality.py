"""Recipes are compared by the package's own scores, paired, and on parts held out."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from measure import quality, quality_photos, quality_recipes, quality_table
from measure.quality_photos import assign_folds, near_duplicate_groups
from measure.quality_recipes import RECIPES, SETTINGS, Setting, recipe_config
from measure.quality_run import class_outcomes, copy_outcomes
from measure.quality_scores import Resampler, kept_outcomes, micro_ap, summarise
from multigrain_jax.data.benchmarks.copies import assign_roles
from multigrain_jax.data.edits import EDITS
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.classification import (
    class_map,
    classification_scores,
    knn_top1,
)
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.ops.ranking import (
    mean_average_precision,
    micro_average_precision,
    recall_at_k,
)
from multigrain_jax.ops.refinement import normalize_scores

COUNT, DIM, CLASSES = 40, 6, 5


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """Descriptors, logits and labels of photos, descriptors of copies and others."""
    rng = np.random.default_rng(3)
    photos = unit(rng.normal(size=(COUNT, DIM)))
    noise = rng.normal(size=(len(EDITS), COUNT, DIM))
    copies = unit(photos + 0.5 * noise * np.arange(1, 7)[:, None, None] / 6)
    labels = np.append(rng.integers(0, CLASSES - 1, COUNT - 1), CLASSES - 1)
    logits = rng.normal(size=(COUNT, CLASSES)).astype(np.float32)
    background = unit(rng.normal(size=(30, DIM)))
    return photos, copies, labels.astype(np.int32), logits, background


@pytest.fixture(scope="module")
def outcomes(model):
    photos, copies, labels, logits, background = model
    return {
        **class_outcomes(photos, logits, labels),
        **copy_outcomes(photos, copies, background=background),
    }


def test_scores_are_those_of_the_package(model, outcomes):
    photos, copies, labels, logits, _ = model
    found = summarise(outcomes)
    embedded = Embedded(photos, logits, labels, np.zeros(COUNT, bool))
    assert found["top1"] == classification_scores(embedded)["top1"]
    assert found["class_map"] == pytest.approx(class_map(embedded), abs=1e-7)
    assert found["knn_top1"] == knn_top1(embedded)
    own = np.eye(COUNT, dtype=bool)
    for name, rows in zip(EDITS, copies, strict=True):
        similarity = rows @ photos.T
        expected = recall_at_k(similarity, own, k=1)
        assert found[f"{name}/recall_at_1"] == expected
        expected = mean_average_precision(similarity, own)
        assert found[f"{name}/map"] == pytest.approx(expected)
    each = [found[f"{name}/map"] for name in EDITS]
    assert found["copy_map"] == pytest.approx(np.mean(each))


def test_micro_ap_is_that_of_the_benchmark_with_all_pairs(model, outcomes):
    photos, copies, _, _, background = model
    roles = assign_roles(COUNT, seed=0)
    queries = [*roles.references, *roles.strangers]
    database = [*roles.references, *roles.distractors]
    rows = copies[:, queries].reshape(-1, DIM)
    right = np.equal.outer(np.tile(queries, len(EDITS)), database)
    similarity = rows @ photos[database].T
    normalized = normalize_scores(
        similarity, rows @ background.T, weight=2.0, num_neighbours=10
    )
    found = summarise(outcomes)
    for name, scores in (
        ("micro_ap", similarity),
        ("micro_ap_normalized", normalized),
    ):
        expected = micro_average_precision(
            scores.reshape(-1), right.reshape(-1), num_positives=int(right.sum())
        )
        # The least similar photo of each stranger's copy is left out.
        assert found[name] == pytest.approx(expected, abs=1e-6)
        assert 0.1 < expected < 0.9


def test_photos_drawn_once_give_the_scores_and_drawn_twice_those_of_two(outcomes):
    kept = kept_outcomes(outcomes)
    assert {kept[name].dtype for name in ("right", "wrong", "offsets")} == {
        np.dtype(np.float16)
    }
    resampler, expected = Resampler(kept), summarise(outcomes)
    once = resampler.scores(np.ones(COUNT, int))
    for name, value in once.items():
        # Half precision may exchange neighbours.
        assert value == pytest.approx(expected[name], abs=2e-3)
    # Queries that were drawn are there as often, the others not at all.
    drawn = np.random.default_rng(0).multinomial(COUNT, np.full(COUNT, 1 / COUNT))
    times = drawn[outcomes["query_photos"]]
    references = outcomes["right"].shape[1]
    right = kept["right"].repeat(times[:references], axis=1).astype(np.float32)
    wrong = kept["wrong"].repeat(times, axis=1).astype(np.float32)
    scores = np.concatenate([right.reshape(-1), wrong.reshape(-1)])
    # Copies of a photo that was drawn twice stand at one place.
    expected_ap = micro_average_precision(
        scores, np.arange(len(scores)) < right.size, num_positives=right.size
    )
    found = resampler.scores(drawn)
    assert found["micro_ap"] == pytest.approx(expected_ap, abs=0.03)
    assert found["top1"] == np.average(outcomes["top1"], weights=drawn)


def size_of(path):
    with Image.open(path) as image:
        return image.size


def runs_of(recipe, values, fold=None):
    scores = dict.fromkeys(quality_table.HEADS, 0.0)
    scores |= {f"{e}/{s}": 0.5 for e in EDITS for s in ("recall_at_1", "map")}
    return [
        {
            "recipe": recipe,
            "seed": seed,
            "fold": fold,
            "num_scored": COUNT,
            "outcomes": f"{recipe}-{seed}.npz",
            "scores": {**scores, "top1": value},
        }
        for seed, value in enumerate(values)
    ]


def test_the_tables_have_a_row_for_every_recipe(tmp_path):
    runs = [*runs_of("faithful", [0.5, 0.52]), *runs_of("ema", [0.53, 0.53])]
    text = quality_table.tables(runs)
    assert "| faithful | 2 | 51.0 ± 1.4 | 0.0 ± 0.0 |" in text
    assert "| ema | +2.0 ± 1.0 | +0.0 ± 0.0 |" in text
    assert "| ema | 50.0 / 50.0 |" in text
    assert "rotation 15° + flip*" in text
    assert "several machines" not in text
    told = [{**run, "machine": name} for run, name in zip(runs, "aaab", strict=True)]
    assert "3 of a, 1 of b" in quality_table.tables(told)
    single = quality_table.tables(runs_of("faithful", [0.5]))
    assert "| faithful | 1 | 50.0 | 0.0 |" in single
    quality_table.write_plot(tmp_path / "plot.png", runs)
    assert size_of(tmp_path / "plot.png")[0] > 1000


def test_intervals_hold_the_difference_and_tell_a_better_recipe(tmp_path, outcomes):
    better = dict(outcomes)
    better["top1"] = np.ones(COUNT, bool)
    better["right"] = outcomes["right"] + np.float32(0.5)
    first, second = runs_of("ema", [0, 0, 0]), runs_of("faithful", [0, 0, 0])
    for runs, values in ((first, better), (second, outcomes)):
        for run in runs:
            np.savez(tmp_path / run["outcomes"], **kept_outcomes(values))
    grouped = [dict(enumerate(runs)) for runs in (first, second)]
    found = quality_table.intervals(*grouped, tmp_path, resamples=200)
    assert found["class_map"] == (0.0, 0.0)
    low, high = found["top1"]
    assert 0.5 < low < 1 - np.mean(outcomes["top1"]) < high < 1
    assert found["micro_ap"][0] > 0.05
    assert found["ratio"][0] > 1.05
    same = quality_table.intervals(grouped[1], grouped[1], tmp_path, resamples=20)
    assert same["ratio"] == (1.0, 1.0)
    assert same["top1"] == (0.0, 0.0)
    none = quality_table.intervals({}, grouped[1], tmp_path, resamples=20)
    assert np.isnan(none["ratio"]).all()


def test_a_share_of_the_offsets_is_subtracted_from_what_was_kept(tmp_path, outcomes):
    (run,) = runs_of("ema", [0])
    assert quality_table.renormalized(run, tmp_path) == run
    kept = kept_outcomes(outcomes)
    np.savez(tmp_path / run["outcomes"], **kept)
    found = quality_table.renormalized(run, tmp_path)["scores"]
    share = quality_table.OFFSET_SHARE
    scaled = {**kept, "offsets": share * kept["offsets"].astype(np.float32)}
    expected = micro_ap(scaled, tuple(EDITS), share=1.0)
    assert found["micro_ap_normalized"] == pytest.approx(expected, abs=1e-6)
    assert found["micro_ap_normalized"] != summarise(outcomes)["micro_ap_normalized"]
    assert found["top1"] == run["scores"]["top1"]


def test_folds_are_blocks_of_neighbours_and_keep_near_duplicates_together():
    labels = np.repeat([0, 1], [10, 7])
    alone = np.arange(17)
    folds = assign_folds(labels, alone, 5)
    assert folds[:10].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.all(np.diff(folds[10:]) >= 0)
    assert set(folds[10:]) == set(range(5))
    groups = alone.copy()
    groups[[9, 16]] = 1
    folds = assign_folds(labels, groups, 5)
    assert folds[1] == folds[9] == folds[16] == 0


def write_photos(root, split, class_name, count, *, seed):
    rng = np.random.default_rng(seed)
    folder = root / split / class_name
    folder.mkdir(parents=True)
    for number in range(count):
        size = (70, 50) if number % 2 else (60, 90)
        blocks = rng.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of two classes, 12 and 12 to train on; photo 3 of one is there twice."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 12), ("test", 6)):
        for number, name in enumerate("ab"):
            write_photos(root, split, name, count, seed=len(split) + number)
    with Image.open(root / "train" / "a" / "3.png") as photo:
        photo.resize((64, 48)).save(root / "train" / "a" / "9.png")
    return root


def test_photos_are_stored_once_with_their_near_duplicates(folder, tmp_path):
    store = partial(quality_photos.store_photos, str(folder), tmp_path / "stored")
    photos = store(side=48)
    assert [len(names) for names in photos.names.values()] == [24, 12]
    source = photos.source("train", [0, 23])
    assert source.labels.tolist() == [0, 1]
    assert min(size_of(source.describe(0))) == 48
    rows = photos.source("train", np.arange(24))
    assert np.flatnonzero(near_duplicate_groups(rows) != np.arange(24)).size == 1
    # Names are sorted as text: 0, 1, 10, 11, 2, 3, …
    assert photos.groups[11] == photos.groups[5] == 5
    before = Path(source.describe(0)).stat().st_mtime_ns
    assert store(side=48) == photos
    assert Path(source.describe(0)).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="found others"):
        store(side=64)


def test_a_recipe_has_the_setting_s_steps_whatever_the_photos():
    for name, setting in SETTINGS.items():
        make = partial(recipe_config, RECIPES["p_1"], setting, seed=3, steps=None)
        for count in (400, 535, 540, 675, 2000):
            config = make(num_images=count, num_classes=14)
            samples = int(count * config.epoch_len_factor)
            assert -(-samples // config.batch_size) == setting.steps_per_epoch, name
            assert (config.pooling_exponent, config.seed) == (1.0, 3)
    # On all its photos the quick start is what it is.
    assert config.num_epochs == 20
    quickstart = recipe_config(
        {}, SETTINGS["quickstart"], num_images=675, num_classes=14, seed=0, steps=None
    )
    assert quickstart.epoch_len_factor == 2.0


def test_recipes_that_a_version_does_not_know_are_passed_over(folder, tmp_path, capsys):
    photos = quality_photos.store_photos(str(folder), tmp_path / "p", side=48)
    recipes = {"known": {}, "key": {"no_such_key": 1}, "value": {"augmentation": "?"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "RECIPES", recipes)
        assert quality.usable(list(recipes), SETTINGS["96px"], photos) == ["known"]
        printed = capsys.readouterr().out
        assert "key is passed over: there is no key no_such_key" in printed
        assert "value is passed over" in printed
        with pytest.raises(InputError, match="none of the recipes"):
            quality.usable(["key"], SETTINGS["96px"], photos)


def test_the_test_photos_are_not_read_without_a_word(capsys):
    with pytest.raises(SystemExit) as exit_:
        quality.parse(["--on", "test"])
    assert exit_.value.code == 2
    assert "--final" in capsys.readouterr().err
    assert quality.parse(["--on", "test", "--final"]).on == "test"


SMALL: quality_recipes.Changes = {
    "backbone": "tiny",
    "train_size": 33,
    "test_size": 33,
    "batch_size": 16,
    "batch_norm_group_size": 16,
    "sampling_group_size": 16,
    "num_epochs": 1,
    "warmup_epochs": 0.0,
}


@pytest.mark.slow
def test_runs_are_trained_scored_recorded_and_not_made_twice(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(SETTINGS, "96px", Setting(48, 2, SMALL))
    ran = []

    def work(jobs, *, processes, deadline):
        for job in jobs:
            ran.append(job.name)
            future = quality.Future()
            future.set_result(quality.run_job(job))
            quality.record(job, future)

    monkeypatch.setattr(quality, "work", work)
    command = ["--photos", str(folder), "--out", str(tmp_path), "--folds", "3"]
    command += ["--seeds", "1", "--recipes"]
    assert quality.main([*command, "faithful"]) == 0
    assert ran == ["faithful-seed0-fold0"]
    (runs,) = tmp_path.glob("*-96px-validation")
    # A line that a kill cut off is passed over, and the next one is whole.
    with (runs / quality.RUNS_FILE).open("a") as file:
        file.write('{"recipe": "fai')
    ran.clear()
    assert quality.main([*command, "faithful,lambda_1", "--no-intervals"]) == 0
    assert ran == ["lambda_1-seed0-fold0"]
    lines = quality.finished_runs(runs / quality.RUNS_FILE)
    assert [line["recipe"] for line in lines] == ["faithful", "lambda_1"]
    for line in lines:
        assert all(0 <= value <= 1 for value in line["scores"].values())
        assert json.loads(json.dumps(line)) == line
        with np.load(runs / "outcomes" / line["outcomes"]) as kept:
            assert len(kept["top1"]) == line["num_scored"]
            assert np.mean(kept["top1"]) == line["scores"]["top1"]
    assert {line["num_scored"] for line in lines} == {8}
    assert {line["machine"] for line in lines} == {"cpu, float32"}
    assert not list((runs / "work").iterdir())
    printed = capsys.readouterr().out
    assert "2 runs, 1 of them finished before" in printed
    assert (runs / "tables.md").read_text() in printed
