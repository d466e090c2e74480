"""From the keys of a config to typed arguments."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import base, eval_base
from multigrain_jax.data.cache import LocalCache
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.tasks import inputs
from multigrain_jax.tasks.inputs import (
    batches_from_config,
    data_set_from_config,
    plan_from_config,
    reading_from_config,
)

KEYS = {"num_workers": 2, "prefetch_batches": 5, "data_timeout_s": 7.0}
READING = Reading(num_workers=2, prefetch=5, timeout_s=7.0)


@pytest.mark.parametrize("recipe", [base, eval_base])
def test_recipes_of_training_and_evaluation_share_these_keys(recipe):
    config = recipe.get_config()
    config.update(KEYS)
    config.data.update({"source": "folder", "root": "photos", "num_images": 3})
    assert reading_from_config(config.to_dict()) == READING
    assert vars(data_set_from_config(config.to_dict())) == {
        "source": "folder",
        "root": "photos",
        "list_file": None,
        "val_fraction": 0.0,
        "num_images": 3,
        "local_cache_dir": None,
        # Training crops whole photos.
        "decoding": dataclasses.replace(VIEWER, fast=recipe is eval_base),
        "exclude": DEFAULT_EXCLUDE,
        "unreadable_folders": "refuse",
        "instances": None,
    }


@pytest.mark.parametrize("recipe", [base, eval_base])
def test_the_cache_is_as_the_config_says(recipe, tmp_path):
    config = recipe.get_config()
    config.data.update({"root": "photos", "local_cache_dir": str(tmp_path)})
    found = data_set_from_config(config.to_dict()).local_cache_dir
    assert vars(found) == vars(LocalCache(tmp_path))
    config.data.local_cache_gb, config.verify_cache = 1.5, True
    found = data_set_from_config(config.to_dict()).local_cache_dir
    assert vars(found) == vars(LocalCache(tmp_path, max_bytes=1.5e9, compare=True))


class Photos:
    """Six photos that nobody reads."""

    def __len__(self):
        return 6


def test_a_plan_is_of_the_configs_batches_at_the_size_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = {**KEYS, "test_mode": "square", "batch_size": 4}
    plan = plan_from_config(config, Photos(), backbone=BACKBONES["tiny"], test_size=40)
    np.testing.assert_array_equal(plan.rows, [[0, 1, 2, 3], [4, 5, -1, -1]])
    np.testing.assert_array_equal(plan.shapes, [[40, 40]] * 2)
    assert (plan.test_size, plan.test_mode) == (40, "square")


def test_batches_are_read_as_the_config_says(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        inputs, "recorded_batches", lambda *given, **named: asked.update(named) or given
    )
    source, plan = object(), object()
    found = batches_from_config(KEYS, source, plan, workdir=tmp_path)
    assert found == (source, plan)
    assert asked == {"workdir": tmp_path, "reading": READING}
