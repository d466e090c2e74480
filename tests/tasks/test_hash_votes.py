"""Hashes beside a network: each finds pairs that the other does not."""

from pathlib import Path

import numpy as np
import pytest
from helpers.chat import scene
from helpers.configs import small_eval_config
from helpers.descriptors import read_table, stored_descriptors

from configs import embed, near_duplicates
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks.near_duplicates import run


@pytest.fixture(scope="module")
def collection(tiny_checkpoint, tmp_path_factory):
    """Four scenes in two folders, and a darker copy of one in the other folder."""
    base = tmp_path_factory.mktemp("votes")
    for number in range(4):
        folder = base / "photos" / "xy"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.png")
    scene(0).point(lambda value: value * 0.7).save(base / "photos" / "y" / "copy.png")
    config = small_eval_config(embed.get_config, base / "photos", tiny_checkpoint)
    run_embed.run(config, base / "embed")
    return base / "embed"


def find(collection, workdir, **changes):
    config = near_duplicates.get_config()
    config.database, config.hashes = str(collection), "yes"
    config.update(changes)
    results = run(config, workdir)
    pairs = {
        tuple(sorted(Path(row[key]).name for key in ("path", "other_path"))): row
        for row in read_table(workdir / "pairs.csv")
    }
    return results, pairs


def test_both_votes_are_told(collection, tmp_path, capsys):
    stored = {Path(p).name: d for p, d in stored_descriptors(collection).items()}
    names = sorted(stored)
    matrix = np.stack([stored[name] for name in names]).astype(np.float64)
    similarity = matrix @ matrix.T
    copy = similarity[names.index("0.png"), names.index("copy.png")]
    # Above the copy's similarity it is found by its hash alone.
    results, pairs = find(collection, tmp_path / "hash", threshold=1.0)
    assert list(pairs) == [("0.png", "copy.png")]
    (row,) = pairs.values()
    assert row["found_by"] == "hash" and int(row["hash_bits"]) <= 24
    assert float(row["similarity"]) == pytest.approx(copy, abs=1e-3)
    assert (results["num_pairs_by_network"], results["num_pairs_by_hash"]) == (0, 1)
    assert results["num_groups"] == 1
    page = (tmp_path / "hash" / "report.html").read_text()
    assert "found by its hash alone" in page
    # Below all of them the network finds all pairs, and the hash one of these.
    results, pairs = find(collection, tmp_path / "both", threshold=-1.0)
    assert len(pairs) == results["num_pairs_by_network"] == 10
    assert results["num_pairs_by_both"] == 1
    by = {names: row["found_by"] for names, row in pairs.items()}
    assert by.pop(("0.png", "copy.png")) == "network and hash"
    assert set(by.values()) == {"network"}
    assert "by hashes that differ in at most 24 of" in capsys.readouterr().out


def test_hashes_keep_the_rule_of_pairs(collection, tmp_path):
    for rule, count in (("same_folder", 0), ("other_folder", 1)):
        workdir = tmp_path / rule
        results, _ = find(collection, workdir, threshold=1.0, pairs=rule)
        assert results["num_pairs"] == count


def test_of_two_collections_pairs_are_of_a_photo_of_each(collection, tmp_path):
    results, pairs = find(
        collection, tmp_path, threshold=1.0, reference=str(collection)
    )
    # The same files, which are links, and the copy of each in the other one.
    assert results["num_links"] == 5
    assert list(pairs) == [("0.png", "copy.png")]


def test_a_photo_that_is_gone_has_no_hash(collection, tmp_path, capsys):
    results, _ = find(
        collection, tmp_path / "run", threshold=1.0, data={"max_megapixels": 1e-6}
    )
    assert results["num_pairs_by_hash"] == 0
    assert "5 photos have no hash" in capsys.readouterr().out


def test_by_itself_a_collection_is_asked_of_the_network(collection, tmp_path, capsys):
    results, pairs = find(collection, tmp_path, threshold=-1.0, hashes="auto")
    assert "num_pairs_by_hash" not in results
    assert {row["hash_bits"] for row in pairs.values()} == {""}
    assert "--config.hashes=yes" in capsys.readouterr().out
