"""The comparison with the original, but for the original: nothing here runs it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_noise_photos
from scipy import special, stats

from measure import against_original, against_runs
from measure.against_original import check_original, list_photos, parse, plan, welch
from measure.against_runs import (
    METRICS,
    cross_entropy,
    link_photos,
    mean_similarity,
    original_arguments,
    our_config,
)
from measure.quality_photos import TEST, TRAIN
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.train_check import check_train_config


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos of three classes to train with, six to test with."""
    root = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 4), ("val", 2)):
        write_noise_photos(root / part, count=count, sizes=[(40, 30)])
    return root


def jobs_of(photos, out, *more):
    return plan(parse(["clone", str(photos), "--out", str(out), "--seeds", "3", *more]))


def line_of(job, **scores):
    return {**job.made_of, "scores": {**dict.fromkeys(METRICS, 0.5), **scores}}


def test_welch_s_t_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for sizes in ((8, 8), (2, 3), (5, 2)):
        first, second = (rng.normal(size=n) * (1 + n) for n in sizes)
        expected = stats.ttest_ind(first, second, equal_var=False)
        found = welch(first.tolist(), second.tolist())
        assert found == pytest.approx((expected.statistic, expected.pvalue))


def test_welch_s_t_of_too_little_is_none():
    assert welch([1.0], [1.0, 2.0]) == (None, None)
    assert welch([], []) == (None, None)
    assert welch([1.0, 1.0], [1.0, 1.0]) == (None, None)


def test_the_table_has_both_sides_and_their_difference(photos, tmp_path):
    jobs = jobs_of(photos, tmp_path)
    top1 = {"ours": [0.5, 0.52, 0.54], "original": [0.4, 0.44, 0.42]}
    runs = [line_of(job, top1=top1[job.side][job.seed]) for job in jobs]
    head, _, first, *rest = against_original.table(runs).splitlines()
    assert head == "| score | ours, 3 runs | original, 3 runs | t | p |"
    # (0.52 - 0.42) / sqrt(2 * 0.02² / 3), of four degrees of freedom.
    assert first == "| top-1 | 0.520 ± 0.020 | 0.420 ± 0.020 | 6.12 | 0.00 |"
    assert len(rest) == len(METRICS) - 1
    assert "| class mAP | 0.500 ± 0.000 | 0.500 ± 0.000 | – | – |" in rest
    alone = against_original.table(runs[:1]).splitlines()[2]
    assert alone == "| top-1 | 0.500 | – | – | – |"


def test_finished_runs_are_printed_without_running_any(photos, tmp_path, capsys):
    jobs = jobs_of(photos, tmp_path)
    others = jobs_of(photos, tmp_path, "--epochs", "3")
    lines = [line_of(jobs[0]), line_of(jobs[1]), line_of(others[2])]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"side": "ou'
    (tmp_path / "runs.jsonl").write_text(text)
    arguments = ["clone", str(photos), "--out", str(tmp_path), "--processes", "0"]
    assert against_original.main([*arguments, "--seeds", "3"]) == 0
    printed = capsys.readouterr().out
    # Those of other settings are others.
    assert "6 runs, 2 of them finished before" in printed
    assert "| score | ours, 1 runs | original, 1 runs | t | p |" in printed


def test_runs_on_other_photos_of_the_same_names_are_others(photos, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (job, *_) = jobs_of(root, tmp_path)
    path = root / job.photos.names[TEST][0]
    before = job.made_of
    assert jobs_of(photos, tmp_path)[0].made_of == before
    path.write_bytes(path.read_bytes() + b"\0")
    assert job.made_of != before


def test_a_run_that_fails_costs_no_other(photos, tmp_path, capsys, monkeypatch):
    def run(job):
        if job.name == "original-seed0":
            raise InputError("no such luck\nand more")
        return {**line_of(job, top1=0.25), "seconds": 1.0}

    class Now(against_original.ProcessPoolExecutor):
        def __init__(self, *_, **__):
            pass

        def __exit__(self, *_):
            pass

        def submit(self, function, job):
            future = against_original.Future()
            try:
                future.set_result(run(job))
            except InputError as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(against_original, "ProcessPoolExecutor", Now)
    monkeypatch.setattr(against_original, "check_original", lambda *_: None)
    arguments = ["clone", str(photos), "--out", str(tmp_path), "--seeds", "2"]
    assert against_original.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "original-seed0 FAILED: InputError: no such luck\nand more" in printed
    assert "ours, 2 runs | original, 1 runs" in printed
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert {json.loads(line)["side"] for line in lines} == {"ours", "original"}


def test_what_is_missing_is_told_before_anything_runs(photos, tmp_path, capsys):
    arguments = [str(tmp_path / "nowhere"), str(photos), "--out", str(tmp_path / "out")]
    assert against_original.main(arguments) == 2
    printed = capsys.readouterr().err
    assert "found no scripts/train.py, expected a clone of the original" in printed
    assert "--torchvision: found nothing, expected a folder; python -m pip" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), "found no scripts/train.py"),
        (("scripts/train.py", "multigrain/lib"), "found no multigrain/modules"),
    ],
)
def test_half_a_clone_is_none(tmp_path, made, message):
    for name in made:
        (tmp_path / "clone" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        check_original(tmp_path / "clone", tmp_path)


def test_another_torchvision_is_refused(tmp_path, monkeypatch):
    clone, folder = tmp_path / "clone", tmp_path / "tv"
    for name in ("scripts/train.py", "multigrain/lib", "multigrain/modules"):
        (clone / name).mkdir(parents=True)
    (folder / "torchvision").mkdir(parents=True)
    (folder / "torchvision-0.28.0.dist-info").mkdir()
    with pytest.raises(InputError, match=r"found no torchvision 0\.2\.2 in it"):
        check_original(clone, folder)
    (folder / "torchvision-0.2.2.post3.dist-info").mkdir()
    monkeypatch.setattr(against_original, "NEEDED", ("json",))
    check_original(clone, folder)
    monkeypatch.setattr(against_original, "NEEDED", ("json", "no_such_module"))
    with pytest.raises(InputError, match="no_such_module: not installed"):
        check_original(clone, folder)


def test_photos_that_cannot_do_are_refused(photos, tmp_path):
    with pytest.raises(InputError, match="found no folder train, expected train/CLASS"):
        list_photos(tmp_path)
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    kind = sorted((root / "val").iterdir())[0]
    (root / "val").rename(root / "test")
    assert list_photos(root).labels[TEST] == [0, 0, 1, 1, 2, 2]
    shutil.copy(next((root / "test" / kind.name).iterdir()), root / "train")
    with pytest.raises(InputError, match="found photos beside the folders of classes"):
        list_photos(root)
    next((root / "train").glob("*.*")).unlink()
    shutil.rmtree(root / "test" / kind.name)
    with pytest.raises(InputError, match=f"other classes: \\['{kind.name}'\\]"):
        list_photos(root)


def test_the_original_finds_the_photos_in_our_order(photos, tmp_path):
    listed = list_photos(photos)
    link_photos(listed, tmp_path)
    found = sorted((tmp_path / "train").rglob("*.*"))
    assert [Path(path).resolve() for path in found] == [
        (photos / name).resolve() for name in listed.names[TRAIN]
    ]
    assert [int(path.parent.name[1:]) for path in found] == listed.labels[TRAIN]
    # One photo of each class is enough of what is not trained with.
    assert len(list((tmp_path / "val").rglob("*.*"))) == 3


def test_both_sides_are_given_the_same_training(photos, tmp_path):
    job = jobs_of(photos, tmp_path)[2]
    config = our_config(job, lists=tmp_path)
    check_train_config(config.to_dict(), num_devices=1)
    words = original_arguments(job.settings, num_images=12)
    given = dict(zip(words[:-2:2], words[1:-2:2], strict=True))
    same = {
        "--backbone": config.backbone,
        "--pooling-exponent": config.pooling_exponent,
        "--classif-weight": config.classification_weight,
        "--repeated-augmentations": config.num_repeats,
        "--input-size": config.train_size,
        "--batch-size": config.batch_size,
        "--epochs": config.num_epochs,
        "--epoch-len-factor": config.epoch_len_factor,
        "--learning-rate": config.learning_rate,
        "--lr-drops-epochs": ",".join(map(str, config.learning_rate_drop_epochs)),
    }
    assert {name: given[name] for name in same} == {n: str(v) for n, v in same.items()}
    assert config.learning_rate_drop_epochs == (5, 11, 16)
    assert (config.seed, config.batch_norm_group_size) == (1, 48)
    assert job.threads >= 1
    assert jobs_of(photos, tmp_path, "--threads", "3")[0].threads == 3
    # 616 steps of whole batches, for any number of photos.
    for count in (12, 535, 675, 1000, 661):
        factor = job.settings.epoch_length(count)
        assert int(count * factor) == 28 * 48
    assert job.settings.num_epochs * 28 == 616


def test_scores_beside_those_of_quality_are_plain_means():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(6, 4)).astype(np.float32)
    each = [float(a @ b) for i, a in enumerate(rows) for b in np.delete(rows, i, 0)]
    assert mean_similarity(rows) == pytest.approx(np.mean(each), abs=1e-6)
    labels = np.array([0, 3, 2, 1, 0, 2])
    chosen = special.softmax(rows, axis=1)[np.arange(6), labels]
    expected = [-math.log(share) for share in chosen]
    assert cross_entropy(rows, labels) == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_training_of_the_original_that_fails_says_what_it_printed(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(against_runs, "RUN", "import sys; sys.exit('out of luck')")
    job = jobs_of(photos, tmp_path)[1]
    with pytest.raises(InputError, match=r"(?s)exit code 1, expected 0.*out of luck"):
        against_runs.run_job(job)
    assert "out of luck" in (tmp_path / "logs" / "original-seed0.txt").read_text()
