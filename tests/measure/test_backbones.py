"""Networks that are measured tell images apart."""

import numpy as np
import pytest

from measure import backbones
from multigrain_jax.models.multigrain import create_model, merge_model


def test_statistics_are_those_of_images():
    model = create_model("tiny")
    graphdef, variables = backbones.with_statistics(model)
    images = np.random.default_rng(1).standard_normal((4, 96, 96, 3), np.float32)
    found = merge_model(graphdef, variables)(images).normalized_embedding
    assert not backbones.are_alike(np.asarray(found))
    # As where each batch is normalised by its own, but for what n of n - 1 makes.
    model.train()
    expected = model(images).normalized_embedding
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_images_that_are_all_alike_show_nothing(monkeypatch):
    same = np.ones((3, 4), np.float32) / 2
    assert backbones.are_alike(same) and not backbones.are_alike(same[:1])
    measured = backbones.measure("tiny", size=32, batch=2, rounds=1)
    assert measured.difference < 1e-6
    monkeypatch.setattr(backbones, "are_alike", lambda descriptors: True)
    found = backbones.measure("tiny", size=32, batch=2, rounds=1)
    assert found.difference == pytest.approx(float("nan"), nan_ok=True)
