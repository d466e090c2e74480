"""What is wrong with a configuration of an evaluation, in a line each."""

from functools import partial

import jax
import pytest

from configs import eval_base, eval_retrieval, search
from multigrain_jax.data.benchmarks import BENCHMARKS
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.check import (
    choice_problems,
    data_problems,
    dtype_problems,
    evaluation_problems,
    normalization_problems,
    path_problems,
    pooling_exponents,
    refuse,
    require_photos,
    size_problems,
)

NORMALIZATION = [
    f"score_normalization.{key}" for key in ("num_neighbours", "reduction", "weight")
]


def test_all_problems_are_one_error_and_none_is_none():
    refuse([])
    with pytest.raises(InputError, match="cannot work:\n  a: found 1\n  b: found 2"):
        refuse(["a: found 1", "b: found 2"])


def test_values_are_told_with_what_was_expected():
    config = {"kind": "round", "other": "square", "path": "", "file": "a"}
    kinds = ("square", "rect")
    assert choice_problems(config, {"kind": kinds, "other": kinds}) == [
        "kind: found 'round', expected one of square, rect"
    ]
    (line,) = path_problems(config, ("path", "file"))
    assert line.endswith("give it with --config.path=PATH")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        (
            {"source": "web"},
            "data.source: found 'web', expected one of folder, imagene",
        ),
        ({"root": None}, "give it with --config.data.root=DIR"),
        ({"source": "quickstart", "root": None}, None),
        ({"val_fraction": 0.1}, None),
        ({"source": "tfds", "val_fraction": 0.1}, "'tfds', which has its own splits"),
        ({"source": "parquet", "val_fraction": 0.1}, "'parquet', which has its own"),
        ({"list_file": "a.txt"}, None),
        ({"source": "webdataset", "list_file": "a.txt"}, "of which no list is read"),
    ],
)
def test_data_are_to_be_somewhere(changes, message):
    data = {"source": "folder", "root": "/photos", "val_fraction": 0.0} | changes
    found = data_problems(data)
    assert len(found) == (message is not None)
    assert all(message in line for line in found)


@pytest.mark.parametrize(
    ("value", "exponents"),
    [
        (None, ()),
        (3, (3.0,)),
        ("inf", (float("inf"),)),
        ([1.0, "2.5"], (1.0, 2.5)),
    ],
)
def test_exponents_are_one_or_several(value, exponents):
    assert pooling_exponents(value) == exponents


@pytest.mark.parametrize("name", BENCHMARKS)
def test_settings_of_scores_that_are_not_normalised_are_refused(name):
    config = eval_retrieval.get_config(name)
    check = partial(normalization_problems, training="data.training")
    assert check(config.to_dict()) == []
    config.score_normalization.update(weight=1.5, num_neighbours=3, reduction="mean")
    lines = check(config.to_dict())
    assert [line.partition(": found ")[0] for line in lines] == NORMALIZATION
    if "training" not in BENCHMARKS[name].optional_files:
        assert lines[2] == (
            "score_normalization.weight: found 1.5 where nothing is normalised; "
            "choose a "
            "benchmark that has data.training, or leave score_normalization.weight at "
            "2.0"
        )
        return
    assert lines[2] == (
        "score_normalization.weight: found 1.5 without data.training, by which "
        "scores are "
        "normalised; give --config.data.training=DIR, or leave "
        "score_normalization.weight at 2.0"
    )
    config.data.training = "others"
    assert check(config.to_dict()) == []
    config.score_normalization.reduction = "median"
    (line,) = check(config.to_dict())
    assert line.endswith("found 'median', expected one of nth, mean")


def test_a_search_refuses_them_without_descriptors_to_normalise_by():
    config, key = search.get_config(), "score_normalization.training"
    assert normalization_problems(config.to_dict(), training=key) == []
    config.score_normalization.num_neighbours = 5
    (line,) = normalization_problems(config.to_dict(), training=key)
    assert line == (
        f"score_normalization.num_neighbours: found 5 without {key}, by which scores "
        "are "
        f"normalised; give --config.{key}=DIR, or leave "
        "score_normalization.num_neighbours at 10"
    )
    config.score_normalization.training = "workdirs/others"
    assert normalization_problems(config.to_dict(), training=key) == []


def test_sizes_that_are_averaged_are_different():
    for sizes in ("auto", 64, [64], (48, 64)):
        assert size_problems({"test_size": sizes}) == []
    (line,) = size_problems({"test_size": [64, 48, 64]})
    assert line.startswith("test_size: found (64, 48, 64), expected different ones; le")


def test_descriptors_of_photos_that_are_gone_are_no_collection():
    require_photos(1, "database", "embed")
    with pytest.raises(InputError, match="database: embed has no descriptor of a pho"):
        require_photos(0, "database", "embed")


def test_float64_is_computed_or_refused():
    assert dtype_problems({"compute_dtype": "float32"}) == []
    (line,) = dtype_problems({"compute_dtype": "float64"})
    assert "would take float32: expected the environment variable JAX_ENABLE" in line
    (line,) = dtype_problems({"compute_dtype": "float16"})
    assert line.startswith("compute_dtype: found 'float16', expected one of auto")
    with jax.enable_x64(True):
        assert dtype_problems({"compute_dtype": "float64"}) == []


def test_a_recipe_that_is_filled_in_has_no_problems():
    config = eval_base.get_config()
    lines = evaluation_problems(config.to_dict(), num_devices=8)
    assert [line.split(":")[0] for line in lines] == ["init_from", "data.root"]
    config.init_from, config.data.root = "run", "photos"
    assert evaluation_problems(config.to_dict(), num_devices=8) == []
    # Of several sizes each is looked at; the batch is to be shared evenly.
    changed = {**config.to_dict(), "test_size": (16, 224), "batch_size": 12}
    changed["task"] = "eval_retrieval"
    lines = evaluation_problems(changed, num_devices=8)
    assert lines[0] == (
        'test_size: found 16, expected at least 32 pixels, or a list of such, or "auto"'
    )
    assert lines[1].startswith("batch_size = 12 does not divide over 8 devices")
