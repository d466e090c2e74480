"""The task `health`: what was made to be odd, and nothing else."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import read_table
from PIL import Image, ImageFilter

from configs import embed, health
from multigrain_jax.data.picture_faults import PictureFacts
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.files import unescape_name
from multigrain_jax.lock import LOCK_FILE
from multigrain_jax.pages import page
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import health as module
from multigrain_jax.tasks.health import faults_of, run

SETTINGS = health.get_config().to_dict()


def rectangles(seed, tint):
    rng = np.random.default_rng(seed)
    pixels = np.full((240, 320, 3), tint, np.uint8)
    for _ in range(25):
        x, y = rng.integers(0, 280), rng.integers(0, 200)
        pixels[y : y + 40, x : x + 40] = np.clip(
            np.array(tint) + rng.integers(-40, 40, 3), 0, 255
        )
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def collection(tiny_checkpoint, tmp_path_factory):
    """Two classes of two colours, and what is odd among them."""
    base = tmp_path_factory.mktemp("health")
    root = base / "photos"
    for name, tint in (("red", (210, 40, 40)), ("blue", (40, 40, 210))):
        (root / name).mkdir(parents=True)
        for number in range(9):
            rectangles(number, tint).save(root / name / f"{number}.png")
    odd = {
        "wrong": rectangles(20, (40, 40, 210)),
        "dark": rectangles(21, (210, 40, 40)).point(lambda value: value // 12),
        "tiny": rectangles(22, (210, 40, 40)).resize((64, 48)),
        "blurred": rectangles(23, (210, 40, 40)).filter(ImageFilter.GaussianBlur(6)),
        "empty": Image.new("RGB", (320, 240), (210, 40, 40)),
    }
    for name, image in odd.items():
        image.save(root / "red" / f"{name}.png")
    rectangles(24, (210, 40, 40)).save(root / "red" / "gone.png")
    config = small_eval_config(embed.get_config, root, tiny_checkpoint)
    (root / "red" / "torn.png").write_bytes(b"\x89PNG")
    run_embed.run(config, base / "workdir")
    (root / "red" / "gone.png").unlink()
    return base / "workdir"


def run_health(collection, workdir, **values):
    config = health.get_config()
    config.database = str(collection)
    config.update({"num_neighbours": 5, **values})
    return run(config, workdir)


def test_what_is_odd_is_found_with_its_reason(collection, tmp_path, capsys):
    results = run_health(collection, tmp_path)
    said = capsys.readouterr().out
    assert f"without a descriptor are not looked at; see {collection}" in said
    assert json.loads((tmp_path / "results.json").read_text()) == results
    rows = read_table(tmp_path / "health.csv")
    found = {Path(unescape_name(r["path"])).stem: r["reasons"].split() for r in rows}
    assert "mislabel" in found["wrong"]
    for name in ("dark", "tiny", "blurred", "empty"):
        assert name in found[name]
    assert found["gone"] == ["unreadable"] or "unreadable" in found["gone"]
    ordinary = [reasons for name, reasons in found.items() if name.isdecimal()]
    pixels = {"dark", "tiny", "blurred", "empty", "unreadable"}
    assert not pixels & {reason for reasons in ordinary for reason in reasons}
    severities = [float(row["severity"]) for row in rows]
    assert severities == sorted(severities, reverse=True)
    assert results["num_found"] == len(rows)
    for reason, name in module.REASONS.items():
        assert results[name] == sum(reason in r["reasons"].split() for r in rows)
    page = (tmp_path / "report.html").read_text()
    assert f"{len(rows)} of 24 photos should be looked at" in page
    assert "are of “blue”" in page and "nearly empty: 100.0% of one shade" in page


def test_the_pictures_need_not_be_read(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "look_at_file", lambda path: 1 / 0)
    results = run_health(collection, tmp_path, look_at_photos=False)
    assert results["num_mislabels"] >= 1 and results["num_dark"] == 0


def test_folders_that_are_no_classes_have_no_mislabels(collection, tmp_path, capsys):
    results = run_health(collection, tmp_path, classes_agree=1.0, look_at_photos=False)
    assert results["num_mislabels"] == 0
    assert "folders are taken for no classes" in capsys.readouterr().out


def test_a_moved_collection_is_looked_at_where_it_is(collection, tmp_path):
    shutil.copytree(collection.parent / "photos", tmp_path / "moved")
    results = run_health(
        collection, tmp_path / "w", data={"root": str(tmp_path / "moved")}
    )
    assert results["num_unreadable"] == 1
    rows = read_table(tmp_path / "w" / "health.csv")
    assert all(row["path"].startswith(str(tmp_path / "moved")) for row in rows)


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        (PictureFacts(4000, 3000, 0.9, 0.3, 0.1), []),
        (PictureFacts(None, None, 0.15, None, 0.98), []),
        (PictureFacts(200, 10, 0.15, 0.65, 0.98), []),
        (
            PictureFacts(199, 199, 0.14, 0.66, 0.99),
            ["dark", "blurred", "tiny", "empty"],
        ),
        (PictureFacts(1, 1, 0.0, 1.0, 1.0), ["dark", "blurred", "tiny", "empty"]),
    ],
)
def test_the_limits_are_those_of_the_configuration(facts, reasons):
    found = faults_of(3, facts, SETTINGS)
    assert [finding.reason for finding in found] == reasons
    assert all(0 <= f.severity <= 1 and f.place == 3 for f in found)
    none = {"dark_below": 0, "blurred_above": 1, "tiny_below": 0, "empty_above": 1}
    assert faults_of(3, facts, {**SETTINGS, **none}) == []


def test_a_page_that_cannot_be_written_costs_no_table(
    collection, tmp_path, monkeypatch, capsys
):
    def failing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(page, "write_atomically", failing)
    results = run_health(collection, tmp_path / "run", look_at_photos=False)
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert (tmp_path / "run" / "health.csv").exists()
    said = capsys.readouterr().out
    assert "report.html cannot be written: No space left" in said


def test_a_run_whose_lock_is_taken_writes_no_results(collection, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    found = module.nearest_others

    def taken(*arguments):
        (workdir / LOCK_FILE).unlink()
        (workdir / LOCK_FILE).write_text("process 1 on elsewhere")
        return found(*arguments)

    monkeypatch.setattr(module, "nearest_others", taken)
    with pytest.raises(StoppedEarly, match="process 1 on elsewhere"):
        run_health(collection, workdir, look_at_photos=False)
    assert {path.name for path in workdir.iterdir()} == {"config.json", LOCK_FILE}
