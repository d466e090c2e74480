"""The task `near_duplicates`: the copies among other photos, and nothing else."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.descriptors import read_table, stored_descriptors

from configs import near_duplicates
from multigrain_jax.errors import InputError
from multigrain_jax.pages import page
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
