"""The comparison of recipes as a command: what fails, and what is taken once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from measure import quality, quality_table
from multigrain_jax.data.edits import EDITS
from multigrain_jax.errors import InputError


@pytest.fixture
def photos(tmp_path):
    """Three photos of each of two classes to train with, two to test with."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in "ab":
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                blocks = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
                blocks.resize((40, 30)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def jobs_of(photos, *more):
    command = ["--photos", str(photos), "--out", "out", "--folds", "3", *more]
    return list(quality.plan(quality.parse(command)))


def test_a_run_that_fails_is_told_whole_and_the_others_go_on(
    photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def run_job(job):
        if job.seed == 0:
            raise InputError("the configuration cannot work:\n  the first reason")
        job.folder.mkdir(parents=True)
        scores = dict.fromkeys(quality_table.HEADS, 0.5)
        scores |= {f"{e}/{s}": 0.5 for e in EDITS for s in ("recall_at_1", "map")}
        told = {"fold": job.fold, "num_scored": 2, "machine": "a", "seconds": 1.0}
        return {**job.made_of, **told, "outcomes": "none.npz", "scores": scores}

    monkeypatch.setattr(quality, "run_job", run_job)
    monkeypatch.setattr(quality, "prepare_inputs", lambda pool, photos, jobs: None)

    def threads(processes, mp_context):
        return ThreadPoolExecutor(processes)

    monkeypatch.setattr(quality, "ProcessPoolExecutor", threads)
    command = ["--photos", "photos", "--out", "out", "--folds", "3", "--seeds", "2"]
    command += ["--recipes", "faithful", "--no-intervals"]
    assert quality.main(command) == 1
    printed = capsys.readouterr().out
    assert (
        "faithful-seed0-fold0 FAILED: InputError: the configuration cannot work:\n"
        "  the first reason\n"
    ) in printed
    assert "faithful-seed1-fold1: top1 0.500" in printed
    assert "| faithful | 1 |" in printed
    # Only tables: nothing fails.
    assert quality.main([*command, "--processes", "0"]) == 0


def test_a_recipe_that_is_named_twice_is_run_once(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(photos, "--seeds", "1", "--recipes", "faithful,p_1,faithful")
    assert [job.recipe for job in jobs] == ["faithful", "p_1"]


def test_photos_are_the_same_from_wherever_they_are_named(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    stored = jobs_of(photos, "--seeds", "1")[0].photos
    assert jobs_of("photos", "--seeds", "1")[0].photos == stored
    assert jobs_of("./photos/", "--seeds", "1")[0].photos == stored
    # As versions before wrote it.
    listing = stored.root / "photos.json"
    text = listing.read_text()
    listing.write_text(text.replace(f'"{photos}"', '"photos"'))
    assert listing.read_text() != text
    assert jobs_of(photos, "--seeds", "1")[0].photos == stored
    # A folder without a name of its own has one.
    monkeypatch.chdir(photos)
    (job, *_) = jobs_of(".", "--seeds", "1")
    assert job.photos.root == photos / "out" / "photos-photos-96px"
    other = Path("elsewhere", "photos")
    other.mkdir(parents=True)
    with pytest.raises(InputError, match="found others"):
        jobs_of(other, "--seeds", "1")


def test_folds_without_a_photo_are_refused_by_their_option(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--folds: found 4, of which 1 would have no"):
        jobs_of(photos, "--folds", "4")
