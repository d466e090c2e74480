"""Keys without effect: which are refused, in what words, and which are told."""

import numpy as np
import pytest

from configs import (
    base,
    browse,
    copies,
    eval_base,
    eval_retrieval,
    modern,
    quickstart,
    search,
)
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import browse as run_browse
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks.bounds import leaves
from multigrain_jax.tasks.check import evaluation_problems
from multigrain_jax.tasks.idle import (
    DEFAULTS,
    idle_of_expansion,
    idle_of_search,
    idle_of_training,
    idle_problems,
    say_idle,
)
from multigrain_jax.train.optimizer import make_learning_rate

JOINT = {"classification_weight": 0.5, "num_repeats": 3}
INFONCE = {**JOINT, "instance_loss": "infonce"}


def config(**changes):
    values = base.get_config().to_dict()
    for key, value in changes.items():
        outer, _, inner = key.rpartition("__")
        (values[outer] if outer else values)[inner] = value
    return values


def problems(values):
    return idle_problems(values, idle_of_training(values))


@pytest.mark.parametrize("recipe", [base, eval_base, eval_retrieval, search, browse])
def test_the_defaults_are_those_of_the_recipes(recipe):
    held = dict(leaves(recipe.get_config().to_dict()))
    shared = held.keys() & DEFAULTS.keys()
    assert {key: held[key] for key in shared} == {k: DEFAULTS[k] for k in shared}
    if recipe is base:
        of_search = ("approximate.", "query_expansion.", "score_normalization.")
        others = {key for key in DEFAULTS if key.startswith(of_search)}
        assert shared == DEFAULTS.keys() - others


@pytest.mark.parametrize("weight", ["0", "0.5", "1"])
@pytest.mark.parametrize("recipe", [modern, quickstart, copies])
def test_no_recipe_sets_what_has_no_effect(recipe, weight):
    if recipe is copies and weight == "1":
        return  # refused: it leaves InfoNCE no weight
    assert problems(recipe.get_config(weight).to_dict()) == []


@pytest.mark.parametrize(
    ("changes", "needed", "said"),
    [
        (
            {**JOINT, "temperature": 0.1},
            {"instance_loss": "infonce"},
            'temperature: found 0.1 with instance_loss = "margin", which has none; set '
            'instance_loss to "infonce", or leave temperature at 0.05',
        ),
        (
            {**JOINT, "label_smoothing": 0.1, "classification_weight": 0.0},
            {"classification_weight": 0.1},
            "label_smoothing: found 0.1 with classification_weight = 0.0: it is of the "
            "cross-entropy, which is not trained; set classification_weight above 0, "
            "or leave label_smoothing at 0.0",
        ),
        (
            {**INFONCE, "margin": 0.3},
            {"instance_loss": "margin"},
            'margin: found 0.3 with instance_loss = "infonce", which takes the margin '
            'loss\'s place; set instance_loss to "margin", or leave margin at 0.2',
        ),
        (
            {"beta_init": 1.0},
            JOINT,
            "beta_init: found 1.0 with classification_weight = 1.0, which leaves the "
            "margin "
            "loss no weight; set classification_weight below 1, or leave beta_init at "
            "1.2",
        ),
        (
            {**INFONCE, "beta_learning_rate_factor": 0.1},
            {"instance_loss": "margin"},
            'beta_learning_rate_factor: found 0.1 with instance_loss = "infonce", '
            "which "
            'takes the margin loss\'s place; set instance_loss to "margin", or leave '
            "beta_learning_rate_factor at 1.0",
        ),
        (
            {"data__local_cache_gb": 2.0},
            {"data__local_cache_dir": "copies"},
            "data.local_cache_gb: found 2.0 without data.local_cache_dir, where the "
            "copies "
            "would be; give --config.data.local_cache_dir=DIR, or leave "
            "data.local_cache_gb at None",
        ),
        (
            {"verify_cache": True},
            {"data__local_cache_dir": "copies"},
            "verify_cache: found True without data.local_cache_dir, where the copies "
            "would "
            "be; give --config.data.local_cache_dir=DIR, or leave verify_cache at "
            "False",
        ),
        (
            {**JOINT, "data__photos_per_instance": 4},
            {"data__instances": "2"},
            "data.photos_per_instance: found 4 without data.instances, which says what "
            "photos are of one; give --config.data.instances=LEVEL, or leave "
            "data.photos_per_instance at 2",
        ),
        (
            {"init_step": 0, "pretrained_backbone": "zoo"},
            {"init_from": "run"},
            "init_step: found 0 without init_from, of which it chooses the step; give "
            "--config.init_from=DIR, or leave init_step at None",
        ),
        (
            {"init_raw": True},
            {"pretrained_backbone": "zoo"},
            "init_raw: found True without init_from, of which it chooses the "
            "weights; give "
            "--config.init_from=DIR, or leave init_raw at False",
        ),
    ],
)
def test_what_has_no_effect_is_refused_until_it_has(changes, needed, said):
    assert problems(config(**changes)) == [said]
    assert problems(config(**{**changes, **needed})) == []


@pytest.mark.parametrize(
    ("recipe", "run"), [(search, run_search.run), (browse, run_browse.run)]
)
def test_no_task_chooses_of_a_checkpoint_that_is_not_named(recipe, run, tmp_path):
    config = recipe.get_config()
    config.update({"init_step": 5, "init_raw": True, "database": "none"})
    with pytest.raises(InputError) as error:
        run(config, tmp_path / "w")
    for said in ("init_step: found 5", "init_raw: found True"):
        assert f"\n  {said} without init_from, of which" in str(error.value)
    config.init_from = "run"
    with pytest.raises(InputError) as error:
        run(config, tmp_path / "w")
    assert "without init_from" not in str(error.value)


def test_a_sampling_that_recipes_set_for_all_losses_is_told(capsys):
    weighted = {"negative_sampling": "distance_weighted"}
    for changes in ({}, INFONCE, {**JOINT, **weighted}):
        say_idle(config(**changes))
    assert capsys.readouterr().out == ""
    said = "negative_sampling = 'distance_weighted' is without effect: no margin loss\n"
    for changes in ({}, INFONCE):
        say_idle(config(**changes, **weighted))
        assert capsys.readouterr().out == said


@pytest.mark.parametrize("schedule", ["drops", "cosine"])
def test_drops_that_a_schedule_does_not_have_are_told(schedule, capsys):
    for changes in (
        {},
        {"learning_rate_drop_epochs": (2, 4, 5)},
        {"learning_rate_drop_factors": (0.5, 0.1, 0.1)},
    ):
        say_idle(config(learning_rate_schedule=schedule, **changes))
    said = (
        "learning_rate_drop_epochs = (2, 4, 5) is without effect: 'cosine' has no drops"
        "\nlearning_rate_drop_factors = (0.5, 0.1, 0.1) is without effect: 'cosine' "
        "has no drops\n"
    )
    assert capsys.readouterr().out == ("" if schedule == "drops" else said)


@pytest.mark.parametrize("schedule", ["drops", "cosine"])
def test_a_rate_that_never_gets_to_its_height_is_told(schedule, capsys):
    for warmup, epochs in ((0, 0), (1, 2), (4, 4), (4, 1)):
        changes = {"warmup_epochs": float(warmup), "num_epochs": epochs}
        say_idle(config(learning_rate_schedule=schedule, **changes))
        if epochs and warmup >= epochs:
            rate = make_learning_rate(
                schedule,
                base=0.2,
                steps_per_epoch=50,
                num_epochs=epochs,
                warmup_epochs=warmup,
            )
            rates = np.array([rate(step) for step in range(50 * epochs)])
            assert rates.argmax() == len(rates) - 1
            np.testing.assert_allclose(rates[-1], 0.2 * epochs / warmup, rtol=1e-5)
    assert capsys.readouterr().out.splitlines() == [
        f"warmup_epochs = 4 with num_epochs = {epochs}: the learning rate rises to "
        f"the end, there to {share} of learning_rate"
        for epochs, share in ((4, 1), (1, 0.25))
    ]


def test_a_search_refuses_what_another_key_leaves_without_effect():
    values = search.get_config().to_dict()
    assert idle_problems(values, idle_of_search(values)) == []
    values["query_expansion"]["alpha"] = 7.0
    values["approximate"] |= {"num_candidates": 7, "num_recall_queries": 0}
    lines = idle_problems(values, idle_of_search(values))
    assert [line.partition(", or leave")[0] for line in lines] == [
        "query_expansion.alpha: found 7.0 with query_expansion.num_neighbours = 0, by "
        "which no query is expanded; set that above 0",
        *(
            f"approximate.{key}: found {found} without index, as every descriptor is "
            "looked at; give --config.index=DIR, the workdir of `index`"
            for key, found in (("num_candidates", 7), ("num_recall_queries", 0))
        ),
    ]
    values["query_expansion"]["num_neighbours"], values["index"] = 3, "index"
    assert idle_problems(values, idle_of_search(values)) == []
    benchmark = eval_retrieval.get_config().to_dict()
    benchmark["query_expansion"]["alpha"] = 7.0
    (line,) = idle_problems(benchmark, idle_of_expansion(benchmark))
    assert line.startswith("query_expansion.alpha: found 7.0 with")


@pytest.mark.parametrize("with_copies", [False, True])
def test_evaluations_refuse_settings_of_copies_that_there_are_not(with_copies):
    evaluation = eval_base.get_config()
    evaluation.init_from, evaluation.data.root = "run", "photos"
    evaluation.data.local_cache_gb, evaluation.verify_cache = 2.0, True
    evaluation.data.local_cache_dir = "copies" if with_copies else None
    lines = evaluation_problems(evaluation.to_dict(), num_devices=1)
    found = [line.partition(": found ")[0] for line in lines]
    keys = ["data.local_cache_gb", "verify_cache"]
    assert found == ([] if with_copies else keys)


def test_benchmarks_have_no_key_of_copies():
    held = dict(leaves(eval_retrieval.get_config().to_dict()))
    assert not [key for key in held if "cache" in key]
