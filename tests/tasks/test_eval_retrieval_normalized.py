"""Benchmarks with lists and with training photos, whose scores are normalised."""

import json
import shutil
from functools import partial

import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import embeddings
from PIL import Image

from configs import eval_retrieval
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.eval_retrieval import run


def make_config(name, root, checkpoint, **changes):
    get_config = partial(eval_retrieval.get_config, name)
    return small_eval_config(get_config, root, checkpoint, **changes)


@pytest.fixture
def disc21(objects, tmp_path):
    """Three references, a copy of the second of them, and three training photos."""
    root = tmp_path / "disc21"
    for folder in ("references", "queries", "train"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        for folder, letter, kind in (("references", "R", "ant"), ("train", "T", "bee")):
            name = f"{letter}{number:06d}.jpg"
            with Image.open(objects / kind / f"{number}.png") as photo:
                photo.save(root / folder / name)
    shutil.copy(root / "references/R000001.jpg", root / "queries/Q00000.jpg")
    (root / "public_ground_truth.csv").write_text("Q00000,R000001\n")
    return root


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_scores_are_normalised_by_the_training_photos(
    disc21, tiny_checkpoint, tmp_path, reduction
):
    config = make_config("disc21", disc21, tiny_checkpoint)
    config.data.training = str(disc21 / "train")
    config.expected_counts.update(queries=1, references=3, matches=1, training=3)
    config.score_normalization.num_neighbours = 2
    if reduction is not None:
        config.score_normalization.reduction = reduction
    results = run(config, tmp_path / "out")
    photos = [disc21 / "queries/Q00000.jpg", *sorted((disc21 / "train").iterdir())]
    query, *training = embeddings(tiny_checkpoint, photos, sizes=(48,))
    _, second, first = sorted(float(query @ row) for row in training)
    # The copy is like its original at 1, and both are found first.
    offset = first + second if reduction == "mean" else 2 * second
    assert first - second > 1e-3
    assert results["disc21/raw/threshold_at_p90"] == pytest.approx(1, abs=1e-5)
    assert results["disc21/raw/recall_at_1"] == 1
    assert results["disc21/normalized/recall_at_10"] == 1
    found = results["disc21/normalized/threshold_at_p90"]
    assert found == pytest.approx(1 - offset, abs=1e-4)


def test_training_photos_that_cannot_be_read_are_none(
    disc21, tiny_checkpoint, tmp_path
):
    def config():
        found = make_config("disc21", disc21, tiny_checkpoint)
        found.data.training = str(disc21 / "train")
        found.expected_counts.update(queries=1, references=3, matches=1)
        found.expected_counts.training = len(list((disc21 / "train").iterdir()))
        found.score_normalization.num_neighbours = 3
        return found

    name = "disc21/normalized/threshold_at_p90"
    expected = run(config(), tmp_path / "all")[name]
    (disc21 / "train/T000003.jpg").write_bytes(b"nothing")
    assert run(config(), tmp_path / "damaged")[name] == pytest.approx(expected)
    (disc21 / "train/T000000.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"num_neighbours: found 3, expected 1 to 2, "):
        run(config(), tmp_path / "fewer")
    # Where there are too few, nothing is embedded.
    for number in (2, 3):
        (disc21 / f"train/T{number:06d}.jpg").unlink()
    with pytest.raises(InputError, match=r"num_neighbours: found 3, expected 1 to 2, "):
        run(config(), tmp_path / "fewest")
    assert not (tmp_path / "fewest" / "config.json").exists()


def test_a_subset_of_disc21_says_how_many_pairs_it_passes_over(
    disc21, tiny_checkpoint, tmp_path, capsys
):
    (disc21 / "public_ground_truth.csv").write_text("Q00000,R000001\nQ00007,R000002\n")
    for key, name in (("queries", "Q00000"), ("references", "R000001")):
        (tmp_path / key).write_text(f"{name}\n")
    config = make_config("disc21", disc21, tiny_checkpoint)
    config.data.query_list = str(tmp_path / "queries")
    config.data.reference_list = str(tmp_path / "references")
    results = run(config, tmp_path / "out")
    assert (results["num_queries"], results["num_database"]) == (1, 1)
    assert results["disc21/raw/micro_ap"] == 1
    line = (
        f"{disc21 / 'public_ground_truth.csv'}: passed over 1 of 2 pairs, whose query "
        f"is not in {tmp_path / 'queries'} (data.query_list)"
    )
    assert line in capsys.readouterr().out.splitlines()
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["passed_over"] == [line]


def test_a_query_without_a_reference_is_told(disc21, tiny_checkpoint, tmp_path, capsys):
    with open(disc21 / "public_ground_truth.csv", "a") as file:
        file.write("Q00001,\n")
    shutil.copy(disc21 / "train/T000000.jpg", disc21 / "queries/Q00001.jpg")
    config = make_config("disc21", disc21, tiny_checkpoint)
    config.expected_counts.update(queries=2, references=3, matches=1)
    results = run(config, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert "disc21/raw: 1 of 2 queries have no positive" in lines
    assert results["disc21/raw/num_without_positives"] == 1
    saved = json.loads((tmp_path / "out/results.json").read_text())
    assert any("data.training=FOLDER" in line for line in saved["lowered_by"])
