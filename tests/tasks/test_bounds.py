"""Every number of every recipe is looked at before anything is done."""

import importlib
import math
import re
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict, FieldReference

from multigrain_jax.errors import InputError
from multigrain_jax.main import TASKS
from multigrain_jax.tasks.bounds import (
    BOUNDS,
    COUNT,
    OF_TASK,
    as_tuple,
    at_least,
    bound_of,
    leaves,
    optional,
    several,
)

ROOT = Path(__file__).parents[2]
BENCHMARKS = (
    "copies",
    "copydays",
    "disc21",
    "folder",
    "holidays",
    "roxford5k",
    "ukbench",
)
# What each task needs to be given, so that nothing else is wrong.
GIVEN = ("data.root", "database", "queries", "init_from")
# The numbers that mean something although they are zero or below.
ZERO_IS_LEGAL = {
    "approximate.num_recall_queries",
    "beta_init",
    "beta_learning_rate_factor",
    "blurred_above",
    "classes_agree",
    "classification_weight",
    "crop_area_min",
    "cutmix_alpha",
    "dark_below",
    "data.val_fraction",
    "distributed.process_index",
    "eigenvalue_floor",
    "hash_distance",
    "empty_above",
    "init_step",
    "koleo_weight",
    "label_smoothing",
    "learning_rate_drop_epochs",
    "lowest_threshold",
    "margin",
    "max_skipped_fraction",
    "mixup_alpha",
    "momentum",
    "num_workers",
    "port",
    "profile_steps",
    "query_expansion.alpha",
    "query_expansion.num_neighbours",
    "random_erasing",
    "resume_step",
    "score_normalization.weight",
    "seed",
    "threshold",
    "tiny_below",
    "warmup_epochs",
    "weight_decay",
}
BELOW_ZERO_IS_LEGAL = {"lowest_threshold", "threshold"}
# Max-pooling; no model is trained with it.
INFINITY_IS_LEGAL = {"pooling_exponent"}


def recipes():
    for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
        make = runpy.run_path(str(path))["get_config"]
        if path.stem == "eval_retrieval":
            yield from ((f"{path.stem}:{name}", make(name)) for name in BENCHMARKS)
        else:
            yield path.stem, make()


RECIPES = dict(recipes())


def is_legal(task, key, value):
    if key.startswith("expected_counts."):
        return value == 0
    if math.isnan(value):
        return False
    if math.isinf(value):
        return value > 0 and key in INFINITY_IS_LEGAL and task != "train"
    if value < 0:
        return value == -1 and key in BELOW_ZERO_IS_LEGAL
    return key in ZERO_IS_LEGAL or (task, key) == ("finetune_pooling", "learning_rate")


def put(config, key, value):
    """Set a dotted key, past the types that the command line asks for; what it was."""
    *outer, name = key.split(".")
    for inner in outer:
        config = config[inner]
    before = config[name]
    with config.ignore_type():
        config[name] = value
    return before


def filled(recipe):
    """The recipe with what it must be given."""
    config = RECIPES[recipe].copy_and_resolve_references()
    for key in GIVEN:
        if key in dict(leaves(config.to_dict())):
            put(config, key, "given")
    return config


def numbers_of(recipe):
    """The keys whose value is a number, or a placeholder for one."""
    found = []

    def walk(config, prefix):
        for name, value in config.items(preserve_field_references=True):
            kind = type(value)
            if isinstance(value, FieldReference):
                kind, value = value.get_type(), value.get()
            if isinstance(value, ConfigDict):
                walk(value, f"{prefix}{name}.")
            elif kind in (int, float, object, tuple) and name != "exclude":
                found.append(prefix + name)

    walk(RECIPES[recipe], "")
    return found


# A key is looked at in the first recipe of its task.
WALKED = {}
for recipe, config in RECIPES.items():
    for key in numbers_of(recipe):
        WALKED.setdefault((config.task, key), recipe)


@pytest.mark.parametrize("recipe", sorted(set(WALKED.values())))
def test_every_number_has_its_bound_and_what_is_beyond_is_refused(recipe, tmp_path):
    config, workdir = filled(recipe), tmp_path / "workdir"
    run = importlib.import_module(TASKS[config.task]).run
    for key in [key for (_, key), first in WALKED.items() if first == recipe]:
        bound = bound_of(config.task, key)
        assert bound is not None, f"{key} has no bound in tasks/bounds.py"
        for value in (math.nan, math.inf, -math.inf, -1, 0):
            if is_legal(config.task, key, value):
                assert not bound.wrong(value), (key, value)
                continue
            before = put(config, key, value)
            with pytest.raises(InputError) as refused:
                run(config, workdir)
            put(config, key, before)
            lines = str(refused.value).split("\n  ")[1:]
            assert {line.split(":")[0] for line in lines} == {key}, (key, value)
            (line,) = [line for line in lines if line.endswith(bound.words)]
            assert re.search(rf"found {value!r}\S*, expected ", line)
    assert not workdir.exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_within_its_bounds(recipe):
    config = RECIPES[recipe].to_dict()
    for key, value in leaves(config):
        bound = bound_of(config["task"], key)
        assert bound is None or not bound.wrong(value), key


# Of all recipes' words, those that are one of a few.
CHOSEN = {
    "augmentation",
    "backbone",
    "compute_dtype",
    "crop_resize",
    "data.backend",
    "data.background",
    "data.decode",
    "data.decoding",
    "data.depth",
    "data.source",
    "hashes",
    "descriptor_dtype",
    "engine",
    "instance_loss",
    "kind",
    "learning_rate_schedule",
    "linkage",
    "negative_sampling",
    "pairs",
    "optimizer",
    "pooling_exponent",
    "score_normalization.reduction",
    "test_mode",
    "test_size",
    "threshold",
}
# The others are names of the user's, or were looked up before the recipe was made.
FREE = {"benchmark", "task", "data.split", "data.val_split", "report_split", "host"}
FREE |= {"milvus.collection", "milvus.uri"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_word_is_one_of_a_few_or_refused(recipe, tmp_path):
    config = filled(recipe)
    run = importlib.import_module(TASKS[config.task]).run
    words = {k for k, v in leaves(config.to_dict()) if isinstance(v, str)}
    assert words - FREE - set(GIVEN) <= CHOSEN
    for key in words & CHOSEN:
        changed = config.copy_and_resolve_references()
        put(changed, key, "nonsense")
        with pytest.raises(InputError, match=rf"{key}\W+found 'nonsense'"):
            run(changed, tmp_path / "workdir")


def test_no_bound_is_for_a_key_that_no_recipe_has():
    keys = {
        (config.task, key)
        for config in RECIPES.values()
        for key, _ in leaves(config.to_dict())
    }
    assert {key for _, key in keys} >= BOUNDS.keys()
    assert keys >= OF_TASK.keys()


@pytest.mark.parametrize(
    ("bound", "value", "wrong"),
    [
        (COUNT, 1, []),
        (COUNT, 1.5, []),
        (COUNT, True, [True]),
        (COUNT, "1", ["1"]),
        (COUNT, None, [None]),
        (optional(COUNT), None, []),
        (several(at_least(32)), (31, 32, 8), [31, 8]),
        (several(at_least(32))._replace(at_least_one=True), (), [()]),
        (BOUNDS["pooling_exponent"], ("inf", "2.5", 1.0), []),
        (BOUNDS["pooling_exponent"], ("many", "nan", "-1"), ["many", "nan", "-1"]),
        (BOUNDS["pooling_exponent"], {"p": 3}, [{"p": 3}]),
        (bound_of("embed", "test_size"), "auto", []),
        (bound_of("embed", "test_size"), "autos", ["autos"]),
        (bound_of("embed", "test_size"), (64, 96.5), [96.5]),
        (bound_of("eval_classification", "test_size"), (64, 96), [(64, 96)]),
        (bound_of("whiten", "test_size"), "auto", ["auto"]),
        (BOUNDS["momentum"], 1.0, [1.0]),
        (BOUNDS["ema_decay"], 0.0, [0.0]),
        (BOUNDS["ema_decay"], 1.0, [1.0]),
        (BOUNDS["ema_decay"], None, []),
        (BOUNDS["data.val_fraction"], 1.0, [1.0]),
        (BOUNDS["seed"], 2**32, [2**32]),
    ],
)
def test_what_is_wrong_is_told(bound, value, wrong):
    assert bound.wrong(value) == wrong


def test_one_value_is_a_tuple_of_one():
    assert as_tuple([1, 2]) == as_tuple((1, 2)) == (1, 2)
    assert as_tuple("ab") == ("ab",)
    assert as_tuple(None) == (None,)
