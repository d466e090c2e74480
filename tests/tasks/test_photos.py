"""The keys about photos: what they mean, and which values cannot work."""

import dataclasses

import pytest
from helpers.configs import small_train_config

from configs import (
    base,
    embed,
    eval_base,
    eval_imagenet,
    eval_retrieval,
    folder,
    predict,
    search,
)
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.descriptors.folder import DescriptorSettings
from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import load_recipe, recipes
from multigrain_jax.tasks.photos import (
    decoding_from_config,
    decoding_of_database,
    photo_problems,
    recorded_settings,
)

FITTING = ("train", "finetune_pooling", "sweep_pooling", "whiten")
SETTINGS = DescriptorSettings(4, "float16", "d", "tiny", 3.0, 64, "rect", False)


@pytest.mark.parametrize(
    ("recipe", "argument"),
    [(base, None), (eval_base, None), (search, None)]
    + [(eval_retrieval, name) for name in ("folder", "copydays")],
)
def test_recipes_have_the_keys_that_work(recipe, argument):
    config = recipe.get_config(argument) if argument else recipe.get_config()
    assert photo_problems(config.data.to_dict()) == []
    assert tuple(config.data.exclude) == DEFAULT_EXCLUDE


def test_auto_is_for_ones_own_photos():
    data = base.get_config().data.to_dict()
    assert decoding_from_config(data, own_photos=True) == VIEWER
    assert decoding_from_config(data, own_photos=False).pixels == "plain"
    data |= {"decoding": "upright", "background": "#010203", "depth": "maximum"}
    found = decoding_from_config(data, own_photos=True)
    assert (found.pixels, found.background) == ("upright", (1, 2, 3))
    assert found.depth == "maximum"


@pytest.mark.parametrize(
    ("config", "is_fast"),
    [
        (embed.get_config(), True),
        (predict.get_config(), True),
        (eval_imagenet.get_config(), False),
        (eval_retrieval.get_config("folder"), False),
        (eval_retrieval.get_config("copydays"), False),
        (folder.get_config(), False),
        (base.get_config(), False),
    ],
)
def test_photos_of_ones_own_are_decoded_fast_and_nothing_that_is_compared(
    config, is_fast
):
    data = config.data.to_dict()
    # A benchmark of one's own photos looks at them as at one's own.
    is_own = config.task == "eval_retrieval" or data["source"] == "folder"
    assert decoding_from_config(data, own_photos=is_own).fast is is_fast


def test_what_is_trained_or_fitted_as_published_is_of_exact_pixels():
    found = {}
    for path in recipes():
        config = load_recipe(str(path))
        if config.task in FITTING:
            # Whatever its source is set to.
            data = config.data.to_dict()
            found[path.stem] = decoding_from_config(data, own_photos=True).fast
    of_paper = {"joint_1B", "joint_3B", "joint_3BAA", "finetune_p", "sweep_p", "whiten"}
    assert of_paper <= found.keys() and not any(found.values())


@pytest.mark.parametrize(
    ("decode", "own_photos", "is_fast"),
    [("fast", False, True), ("auto", True, True), ("auto", False, False)],
)
def test_training_decodes_fast_where_it_is_asked(decode, own_photos, is_fast):
    data = {**base.get_config().data.to_dict(), "decode": decode}
    assert decoding_from_config(data, own_photos=own_photos).fast is is_fast


WRONG = {
    "decode": ("quick", None, True),
    "decoding": ("viewers", None, 3),
    "depth": ("max", None),
    "background": ("whitest", "#12", 7, None, ""),
    "exclude": (None, "x.jpg", (1,), ("",), {"a": 1}),
}


@pytest.mark.parametrize("key", WRONG)
def test_wrong_values_are_named(key):
    for value in WRONG[key]:
        data = {**base.get_config().data.to_dict(), key: value}
        (problem,) = photo_problems(data)
        assert problem.startswith(f"data.{key}: found {value!r}, expected ")


@pytest.mark.parametrize("key", WRONG)
def test_training_refuses_them_at_the_start(key, tmp_path):
    from multigrain_jax.tasks.train_check import check_train_config

    config = small_train_config(tmp_path).to_dict()
    config["data"][key] = WRONG[key][0]
    with pytest.raises(InputError, match=f"data.{key}: found"):
        check_train_config(config, num_devices=1)


def test_queries_are_decoded_as_the_database_was():
    def decoding(record):
        settings = SETTINGS._replace(decoding=record)
        return decoding_of_database(settings, max_megapixels=5.0, database="d")

    # Older than the record.
    assert decoding(None).pixels == "upright"
    assert decoding(VIEWER.record()).record() == VIEWER.record()
    assert decoding("plain").max_megapixels == 5.0
    for record in ("finer", "viewer", ""):
        with pytest.raises(InputError, match="this version does not know"):
            decoding(record)


def test_a_folder_without_a_record_goes_on_without_one():
    upright = decoding_from_config(
        {**base.get_config().data.to_dict(), "decoding": "upright"}, own_photos=True
    )
    recorded = SETTINGS._replace(decoding=VIEWER.record())
    assert recorded_settings(SETTINGS, VIEWER, before=None) == recorded
    assert recorded_settings(SETTINGS, VIEWER, before=recorded) == recorded
    assert recorded_settings(SETTINGS, upright, before=SETTINGS) == SETTINGS
    # Which such a folder cannot have been.
    fast = dataclasses.replace(upright, fast=True)
    assert (
        recorded_settings(SETTINGS, fast, before=SETTINGS).decoding == "upright, fast"
    )
    # Other pixels than it can have: they are refused when the folder is opened.
    assert recorded_settings(SETTINGS, VIEWER, before=SETTINGS) == recorded
