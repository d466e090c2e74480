"""The task `near_duplicates` on a folder of photos."""

import json
import shutil
import sys

import pytest
from helpers.chat import scene
from helpers.descriptors import read_table
from PIL import Image

from configs import near_duplicates
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.near_duplicates import run
from multigrain_jax.tasks.photo_duplicates import is_photo_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photos in albums, a file twice, a small copy, a bad one and a plain one."""
    root = tmp_path_factory.mktemp("chat") / "photos"
    for number, album in enumerate(("2019", "2020", "2020")):
        (root / album).mkdir(parents=True, exist_ok=True)
        scene(number).save(root / album / f"{number}.png")
    shutil.copy(root / "2019" / "0.png", root / "2020" / "again.png")
    scene(1).resize((48, 36)).save(root / "2019" / "small.jpg", quality=40)
    (root / "bad.jpg").write_bytes(b"no photo")
    Image.new("RGB", (30, 30)).save(root / "plain.png")
    (root / "readme.txt").write_text("no photo")
    return root


def config_for(folder, **changes):
    config = near_duplicates.get_config()
    config.database = str(folder)
    config.update(changes)
    return config


def test_duplicates_need_no_network(folder, tmp_path, capsys):
    results = run(config_for(folder), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) | {
        "num_notes": 0,
        "passed_over": [],
    } == results | {"num_notes": 0, "passed_over": []}
    assert {name: results[name] for name in results if name != "seconds"} == {
        "num_images": 7,
        "num_pairs": 2,
        "num_groups": 2,
        "num_images_in_groups": 4,
        "num_same_bytes": 1,
        "num_links": 0,
        "num_unreadable": 1,
        "num_too_plain": 1,
    }
    pairs = read_table(tmp_path / "pairs.csv")
    assert [(row["found_by"], row["path"], row["other_path"]) for row in pairs] == [
        ("bytes", f"{folder}/2019/0.png", f"{folder}/2020/again.png"),
        ("hash", f"{folder}/2019/small.jpg", f"{folder}/2020/1.png"),
    ]
    bits = int(pairs[1]["hash_bits"])
    assert float(pairs[1]["similarity"]) == pytest.approx(1 - bits / 128)
    groups = read_table(tmp_path / "groups.csv")
    # Of groups of one size, the nearest is the first.
    assert [float(row["lowest_similarity"]) == 1 for row in groups][:2] == [True] * 2
    assert [row["same_bytes_as"] for row in groups if row["same_bytes_as"]] == [
        f"{folder}/2019/0.png"
    ]
    said = capsys.readouterr().out
    first = said.splitlines()[0]
    assert "7 photos, without a network: files of the same bytes, then" in first
    assert "differ in at most 24 of 128 bits" in first
    assert "readme" not in said and ".txt" in (tmp_path / "notes.txt").read_text()
    (skipped,) = (tmp_path / "skipped.txt").read_text().splitlines()
    assert "bad.jpg" in skipped
    page = (tmp_path / "report.html").read_text()
    assert "2 groups of 4 among 7 photos, found without a network" in page
    assert "the same bytes as 2019/0.png" in page and "2020/1.png" in page
    assert "2 photos, the same file" in page


def test_without_the_library_bytes_are_compared(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    results = run(config_for(folder), tmp_path / "auto")
    assert (results["num_groups"], results["num_same_bytes"]) == (1, 1)
    assert "pip install imagehash" in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(InputError, match="need the package imagehash"):
        run(config_for(folder, hashes="yes"), tmp_path / "yes")
    results = run(config_for(folder, hashes="no"), tmp_path / "no")
    assert "num_too_plain" not in results
    assert capsys.readouterr().out.splitlines()[0].endswith("the same bytes alone")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reference": "workdirs/embed"},
            "reference: found 'workdirs/embed' with a fo",
        ),
        (
            {"pairs": "same_folder"},
            "pairs: found 'same_folder' with a folder of photos",
        ),
        ({"threshold": 0.95}, "threshold: found 0.95 with a folder of photos"),
        ({"hash_distance": 64}, "hash_distance: found 64, expected from 0 to 48 bits"),
        ({"hashes": "maybe"}, "hashes: found 'maybe', expected one of auto, yes, no"),
    ],
)
def test_keys_that_cannot_work_are_refused(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(config_for(folder, **changes), tmp_path / "run")


def test_a_folder_of_nothing_is_neither(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"neither descriptors nor photos.*\(database: "
    ):
        run(config_for(tmp_path / "empty"), tmp_path / "run")
    with pytest.raises(InputError, match="or give a folder of photos, of which"):
        run(config_for(tmp_path / "nowhere"), tmp_path / "run")


def test_what_is_a_collection_is_no_folder_of_photos(folder, database, tmp_path):
    assert is_photo_folder(folder)
    for path in (database, database / "descriptors", tmp_path / "nowhere"):
        assert not is_photo_folder(path)
    # An `embed` that has not come far.
    (tmp_path / "config.json").write_text('{"task": "embed"}')
    assert not is_photo_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "{", '{"task": "resize"}', '{"task": "a.b"}', '{"task": 3}', '"task"'],
)
def test_a_config_of_others_among_photos_is_no_collection(text, tmp_path):
    scene(0).save(tmp_path / "0.png")
    (tmp_path / "config.json").write_text(text)
    assert is_photo_folder(tmp_path)
