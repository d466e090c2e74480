"""Which weights of a checkpoint are taken, and what is said of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.opened_model import open_model
from multigrain_jax.tasks.weights import open_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A checkpoint of a model and its average, and their classifiers' kernels."""
    folder = tmp_path_factory.mktemp("averaged")
    last, average = (
        split_model(create_model("tiny", num_classes=3, seed=seed))[1]
        for seed in (1, 2)
    )
    meta = {"backbone": "tiny", "num_classes": 3, "class_names": ["a", "b", "c"]}
    store = CheckpointStore(folder)
    store.save(5, model=last, ema=average, meta={**meta, "config": None})
    store.close()
    kernels = [np.asarray(v.params["classifier"]["kernel"]) for v in (last, average)]
    return folder, *kernels


def kernel_of(variables):
    return np.asarray(variables.params["classifier"]["kernel"])


def settings(path, *, raw):
    return {
        "init_from": str(path),
        "init_step": None,
        "init_raw": raw,
        "compute_dtype": "float32",
    }


def test_the_average_is_taken_where_it_is_and_that_is_said(kept, capsys):
    path, last, average = kept
    opened = open_weights(settings(path, raw=False), pooling_exponent=None)
    np.testing.assert_array_equal(kernel_of(opened.variables), average)
    assert "its running average (ema; init_raw=True" in capsys.readouterr().out
    opened = open_weights(settings(path, raw=True), pooling_exponent=None)
    np.testing.assert_array_equal(kernel_of(opened.variables), last)
    assert "its last weights (init_raw=False takes" in capsys.readouterr().out


def test_an_opened_model_has_the_average_or_the_last_weights(kept):
    path, last, average = kept
    np.testing.assert_array_equal(kernel_of(open_model(path).variables), average)
    found = open_model(path, raw=True).variables
    np.testing.assert_array_equal(kernel_of(found), last)


@pytest.mark.parametrize("raw", [False, True])
def test_without_an_average_asking_for_the_last_weights_changes_nothing(
    tiny_checkpoint, capsys, raw
):
    open_weights(settings(tiny_checkpoint, raw=raw), pooling_exponent=None)
    said = capsys.readouterr().out
    assert "its only weights (init_raw=True is without effect)" in said or not raw
    assert raw or said == ""


def test_every_recipe_that_names_a_checkpoint_can_name_its_last_weights():
    for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
        text = path.read_text(encoding="utf-8")
        assert ("config.init_step =" in text) == ("config.init_raw =" in text), path


# These make new checkpoints of what they open.
AS_TRAINED = {"whiten", "finetune_pooling"}
# These open for the others.
HAND_ON = {"embed_defaults", "weights"}


def test_every_task_folds_what_it_only_looks_at():
    openers = re.compile(r"(?<!def )\bopen_(?:weights|checkpoint|model)\(")
    opening = {
        path.stem: text
        for path in (ROOT / "multigrain_jax" / "tasks").glob("*.py")
        if openers.search(text := path.read_text(encoding="utf-8"))
    }
    assert {"embed", "predict", *AS_TRAINED} <= opening.keys()
    folding = {name for name, text in opening.items() if ".for_inference(" in text}
    assert opening.keys() - folding == AS_TRAINED | HAND_ON
