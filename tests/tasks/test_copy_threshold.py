"""Where "the same photo" begins."""

import json

import pytest

from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.tasks.copy_threshold import (
    known_threshold,
    threshold_of_collection,
)
from multigrain_jax.weights.table import PUBLISHED


def test_the_threshold_is_the_measured_one_else_the_published_one(tmp_path):
    step = tmp_path / "run" / "checkpoints" / "5"
    step.mkdir(parents=True)
    known = {"name": "n", "results": {"test/copy_threshold_at_p90": 0.6}}
    found = known_threshold(step, {"published": known})
    assert (found.start, found.origin) == (0.6, "published for n")
    results = tmp_path / "run" / "results.json"
    results.write_text(json.dumps({"val/copy_threshold_at_p90": 0.7, "x": 1}))
    assert known_threshold(step, {"published": known}).start == 0.7
    for broken in ("[]", "{", '{"a/copy_threshold_at_p90": "x"}'):
        results.write_text(broken)
        assert known_threshold(step, {"published": known}).start == 0.6


@pytest.mark.parametrize(
    ("meta", "whose"),
    [
        *(({"published": row.record(n)}, n) for n, row in PUBLISHED.items()),
        ({}, "these weights"),
        ({"published": None, "config": None}, "these weights"),
        # Fine-tuned: it is another network by now.
        ({"published": {"name": "n"}, "config": {"task": "train"}}, "these weights"),
    ],
)
def test_a_guess_says_of_which_weights_nothing_was_measured(meta, whose, tmp_path):
    found = known_threshold(tmp_path, meta)
    assert found.start == 0.9
    expected = f"a guess, the same for every network: nothing was measured of {whose}"
    assert found.origin == expected


@pytest.fixture
def collection(tmp_path):
    """A workdir whose descriptors were made by released weights."""
    _, variables = split_model(create_model("tiny", num_classes=0, seed=1))
    store = CheckpointStore(tmp_path / "weights")
    meta = {"backbone": "tiny", "num_classes": 0, "class_names": []}
    store.save(0, model=variables, meta=meta | {"published": {"name": "released"}})
    store.close()
    config = {"init_from": str(tmp_path / "weights"), "init_step": None}
    (tmp_path / "embed").mkdir()
    (tmp_path / "embed" / "config.json").write_text(json.dumps(config))
    return tmp_path / "embed"


def test_of_a_collection_it_is_that_of_its_weights(collection, capsys):
    assert threshold_of_collection(collection) == 0.9
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("threshold = 0.9: a guess")
    assert first.endswith("measured of released")
    assert second.startswith("to choose one: ") and "--config.threshold=0.8" in second
    results = collection.parent / "weights" / "results.json"
    results.write_text(json.dumps({"val/copy_threshold_at_p90": 0.7}))
    assert threshold_of_collection(collection) == 0.7
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("threshold = 0.7: measured by")


def test_weights_that_are_gone_and_a_config_that_is_are_a_guess(collection, capsys):
    (collection.parent / "weights").rename(collection.parent / "gone")
    assert threshold_of_collection(collection) == 0.9
    (collection / "config.json").unlink()
    assert threshold_of_collection(collection) == 0.9
    assert capsys.readouterr().out.count("nothing was measured of these weights") == 2
