"""The task `near_duplicates`: the copies among other photos, and nothing else."""

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.descriptor_folders import SETTINGS
from helpers.descriptors import read_table, stored_descriptors
from helpers.photos import CLASS_NAMES

from configs import near_duplicates
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors import near_duplicates as search
from multigrain_jax.descriptors.folder import OK, ImageStamp
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError
from multigrain_jax.files import unescape_name
from multigrain_jax.pages import page
from multigrain_jax.tasks.duplicate_tables import begin_results
from multigrain_jax.tasks.near_duplicates import run


def test_near_duplicates_are_the_copies(database, tmp_path):
    config = near_duplicates.get_config()
    config.database = str(database)
    config.threshold = threshold_between(stored_descriptors(database))
    results = run(config, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert results["num_groups"] == 2
    assert results["num_images_in_groups"] == 5
    assert results["num_pairs"] == 4
    groups = {}
    for row in read_table(tmp_path / "groups.csv"):
        groups.setdefault(row["group"], []).append(Path(row["path"]).name)
    assert {number: sorted(names) for number, names in groups.items()} == {
        "1": ["0.png", "=copy.png", "copy too.png"],
        "2": ["0.png", "<b>.png"],
    }
    pairs = read_table(tmp_path / "pairs.csv")
    assert len(pairs) == 4
    report = (tmp_path / "report.html").read_text()
    assert "2 groups of 5 among 21 photos" in report


def test_groups_of_one_size_and_pairs_are_sorted_by_similarity(tmp_path):
    angles = np.deg2rad([0, 20, 90, 92, 180, 190, 270, 271, 273])
    rows = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    photos = [ImageStamp(f"/p/{n}.jpg", 1, 5) for n in range(len(rows))]
    writer = DescriptorWriter(tmp_path / "d", SETTINGS, rows_per_shard=100)
    order, _ = writer.begin(photos, lambda indices: indices)
    added = [photos[n] for n in order]
    writer.add(added, rows[np.asarray(order)].astype(np.float32), [OK] * len(rows))
    writer.finish()
    run(settings_for(tmp_path / "d", threshold=0.9), tmp_path / "w")
    assert names_of(tmp_path / "w" / "groups.csv") == {
        "1": ["6.jpg", "7.jpg", "8.jpg"],
        "2": ["2.jpg", "3.jpg"],
        "3": ["4.jpg", "5.jpg"],
        "4": ["0.jpg", "1.jpg"],
    }
    pairs = [float(row["similarity"]) for row in read_table(tmp_path / "w/pairs.csv")]
    assert len(set(pairs)) > 3 and pairs == sorted(pairs, reverse=True)


def test_a_page_that_cannot_be_written_is_one_line(
    database, tmp_path, monkeypatch, capsys
):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(page, "write_atomically", full)
    config = near_duplicates.get_config()
    config.database = str(database)
    config.threshold = threshold_between(stored_descriptors(database))
    results = run(config, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    lines = capsys.readouterr().out.splitlines()
    (warning,) = [line for line in lines if line.startswith("WARNING")]
    assert "report.html cannot be written: No space left on device (" in warning


def settings_for(database, **values):
    config = near_duplicates.get_config()
    config.database = str(database)
    config.update(values)
    return config


def names_of(table):
    groups = {}
    for row in read_table(table):
        groups.setdefault(row["group"], []).append(Path(row["path"]).name)
    return {number: sorted(names) for number, names in groups.items()}


@pytest.mark.parametrize("linkage", ["single", "complete"])
def test_photos_of_the_same_pixels_reach_a_threshold_of_one(
    database, tmp_path, linkage
):
    run(settings_for(database, threshold=1.0, linkage=linkage), tmp_path)
    assert names_of(tmp_path / "groups.csv") == {
        "1": ["0.png", "=copy.png", "copy too.png"],
        "2": ["0.png", "<b>.png"],
    }
    pairs = read_table(tmp_path / "pairs.csv")
    assert [float(row["similarity"]) for row in pairs] == [1.0] * 4


def test_files_of_the_same_bytes_are_told(database, tmp_path):
    results = run(settings_for(database, threshold=1.0), tmp_path / "compared")
    rows = read_table(tmp_path / "compared" / "groups.csv")
    same = [row for row in rows if row["same_bytes_as"]]
    assert len(same) == results["num_same_bytes"] == 3
    for row in same:
        one, other = (
            Path(unescape_name(row[key]).removeprefix("'"))
            for key in ("path", "same_bytes_as")
        )
        assert one != other and one.read_bytes() == other.read_bytes()
    config = settings_for(database, threshold=1.0, compare_files=False)
    assert run(config, tmp_path / "not")["num_same_bytes"] == 0
    rows = read_table(tmp_path / "not" / "groups.csv")
    assert {row["same_bytes_as"] for row in rows} == {""}


def test_a_group_says_how_similar_its_photos_are_at_least(database, tmp_path):
    stored = stored_descriptors(database)
    matrix = np.stack(list(stored.values())).astype(np.float64)
    similarity = np.clip(matrix @ matrix.T, -1, 1)
    number = {path: n for n, path in enumerate(stored)}
    threshold = float(np.quantile(similarity, 0.7))
    for linkage in ("single", "complete"):
        workdir = tmp_path / linkage
        run(settings_for(database, threshold=threshold, linkage=linkage), workdir)
        groups = {}
        for row in read_table(workdir / "groups.csv"):
            groups.setdefault(row["group"], []).append(row)
        assert groups
        for rows in groups.values():
            own = [number[unescape_name(row["path"])] for row in rows]
            lowest = similarity[np.ix_(own, own)].min()
            for row in rows:
                assert float(row["lowest_similarity"]) == pytest.approx(
                    lowest, abs=1e-4
                )
            assert (lowest >= threshold - 1e-4) or linkage == "single"


def test_pairs_may_be_of_one_folder_or_of_different_ones(database, tmp_path):
    counts = {}
    for rule in ("any", "same_folder", "other_folder"):
        config = settings_for(database, threshold=-1.0, pairs=rule)
        counts[rule] = run(config, tmp_path / rule)["num_pairs"]
        for row in read_table(tmp_path / rule / "pairs.csv"):
            folders = {
                Path(unescape_name(row[k])).parent for k in ("path", "other_path")
            }
            assert rule == "any" or (len(folders) == 1) == (rule == "same_folder")
    assert counts["any"] == 21 * 20 // 2
    assert counts["any"] == counts["same_folder"] + counts["other_folder"]
    assert counts["same_folder"] == 3 * (6 * 5 // 2) + 3


def test_a_reference_that_was_decoded_otherwise_is_told_with_the_remedy(tmp_path):
    exact, fast = VIEWER, dataclasses.replace(VIEWER, fast=True)
    for decoding in (exact, fast):
        settings = SETTINGS._replace(decoding=decoding.record())
        photos = [ImageStamp("/p/0.jpg", 1, 5)]
        place = tmp_path / ("fast" if decoding.fast else "exact")
        writer = DescriptorWriter(place, settings, rows_per_shard=100)
        writer.begin(photos, lambda indices: indices)
        writer.add(photos, np.ones((1, SETTINGS.dim), np.float32), [OK])
        writer.finish()
    config = settings_for(tmp_path / "exact", reference=str(tmp_path / "fast"))
    remedy = "these with --config.data.decode=exact, or the others with"
    with pytest.raises(InputError, match=remedy):
        run(config, tmp_path / "w")


def test_a_reference_is_another_collection(database, tmp_path):
    config = settings_for(database, threshold=1.0, reference=str(database))
    results = run(config, tmp_path)
    # Every photo is in the other one too: the same file, which is no duplicate.
    assert results["num_images"] == 42
    assert results["num_links"] == 21
    pairs = read_table(tmp_path / "pairs.csv")
    assert len(pairs) == results["num_pairs"] == 4
    config = settings_for(database, reference=str(database), pairs="train_val")
    with pytest.raises(InputError, match="reference: found a second collection"):
        run(config, tmp_path)


def test_photos_of_val_that_are_in_train_are_leaks(database, tmp_path, capsys):
    config = near_duplicates.get_config("leaks")
    config.database, config.threshold = str(database), -1.0
    config.data.val_fraction = 0.4
    results = run(config, tmp_path)
    stored = stored_descriptors(database)
    leaks = read_table(tmp_path / "leaks.csv")
    val = {unescape_name(row["val_path"]) for row in leaks}
    train = {path for path in stored if Path(path).parent.parent.name == "train"} - val
    # Of each of three classes of six; what lies beside them is of neither.
    assert (len(val), len(train)) == (6, 12)
    assert {Path(path).parent.name for path in val} == set(CLASS_NAMES)
    assert results["num_leaks"] == len(leaks) == 6
    assert results["num_pairs"] == 6 * 12
    for row in leaks:
        own = stored[unescape_name(row["val_path"])]
        similarities = {path: float(own @ stored[path]) for path in train}
        best = max(similarities.values())
        assert float(row["similarity"]) == pytest.approx(best, abs=1e-4)
        assert similarities[unescape_name(row["train_path"])] == pytest.approx(
            best, abs=1e-4
        )
    said = capsys.readouterr().out
    assert "6 photos of val have a near duplicate in train" in said
    page = (tmp_path / "report.html").read_text()
    assert "Shown are 6 of 6 photos." in page
    line = "nearly the same in train: 12; shown are the 11 most similar"
    assert page.count(line) == 6


def test_a_database_of_one_split_has_no_leaks(database, tmp_path):
    config = near_duplicates.get_config("leaks")
    config.database, config.data.val_fraction = str(database), 0.0
    begin_results(tmp_path, {**config.to_dict(), "pairs": "any"})
    (tmp_path / "groups.csv").touch()
    with pytest.raises(InputError, match="val"):
        run(config, tmp_path)
    assert (tmp_path / "groups.csv").exists()  # of a search that was possible


def test_pairs_that_were_let_go_are_told(database, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "MAX_PAIRS", 3)
    results = run(settings_for(database, threshold=0.0), tmp_path)
    assert results["num_pairs"] == 3
    said = capsys.readouterr().out
    assert "more than 3 pairs reach threshold = 0: the most similar 3 are kept" in said


def threshold_between(descriptors):
    """Above all similarities but those of the copies."""
    matrix = np.stack(list(descriptors.values())).astype(np.float32)
    similarity = np.sort((matrix @ matrix.T)[np.triu_indices(len(matrix), 1)])
    assert similarity[-4] > similarity[-5]
    return float(similarity[-4] + similarity[-5]) / 2


@pytest.mark.parametrize(
    ("database", "message"),
    [(None, "database: found nothing"), ("nowhere", "a folder of descriptors was")],
)
def test_a_collection_is_needed(tmp_path, database, message):
    config = near_duplicates.get_config()
    config.database = database and str(tmp_path / database)
    with pytest.raises(InputError, match=message):
        run(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
