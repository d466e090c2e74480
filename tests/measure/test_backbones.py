"""Networks that are measured tell images apart."""

import numpy as np
import pytest

from measure import backbones
from multigrain_jax.models.multigrain import create_model, merge_model


def embeddings(graphdef, variables):
    images = np.random.default_rng(2).standard_normal((3, 48, 48, 3), np.float32)
    model = merge_model(graphdef, variables)
    return np.asarray(model(images).normalized_embedding)


def test_statistics_are_those_of_images():
    graphdef, variables = backbones.with_statistics(create_model("tiny"))
    found = embeddings(graphdef, variables)
    assert not backbones.are_alike(found)
    similarity = found @ found.T
    assert similarity[~np.eye(3, dtype=bool)].max() < 0.98


def test_images_that_are_all_alike_show_nothing(monkeypatch):
    same = np.ones((3, 4), np.float32) / 2
    assert backbones.are_alike(same) and not backbones.are_alike(same[:1])
    measured = backbones.measure("tiny", size=32, batch=2, rounds=1)
    assert measured.difference < 1e-6
    monkeypatch.setattr(backbones, "are_alike", lambda descriptors: True)
    found = backbones.measure("tiny", size=32, batch=2, rounds=1)
    assert found.difference == pytest.approx(float("nan"), nan_ok=True)
