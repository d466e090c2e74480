"""A new backbone is its file, its row and its key map: nothing else knows of it."""

import jax
import numpy as np
import pytest
from flax import nnx

from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.convert.keymaps import KEYMAPS, KeyMap
from multigrain_jax.convert.state_dict import export_state_dict, import_state_dict
from multigrain_jax.inference import load_model
from multigrain_jax.models.backbones import Backbone
from multigrain_jax.models.layers import Conv, relu
from multigrain_jax.models.multigrain import (
    BACKBONES,
    abstract_model,
    create_model,
    split_model,
)

KEYS = {"features.stem.weight", "features.stem.bias", "pool.p"}
KEYS |= {"classifier.weight", "classifier.bias"}


class Patches(nnx.Module):
    """A trunk unlike the others: one convolution with a bias, and no batch norm."""

    def __init__(self, *, group_size, dtype, rng):
        del group_size
        self.project = Conv(3, 6, 8, stride=8, use_bias=True, dtype=dtype, rng=rng)

    def __call__(self, x):
        return relu(self.project(x))


@pytest.fixture(autouse=True)
def patches(monkeypatch):
    monkeypatch.setitem(BACKBONES, "patches", Backbone(Patches, 6, smallest_side=8))
    keymap = KeyMap(
        modules=(("stem", "trunk.project"),),
        prefix="features.",
        zoo_classifier="head",
        has=("stem.bias",),
    )
    monkeypatch.setitem(KEYMAPS, "patches", keymap)


def test_its_variables_become_a_state_dict_and_come_back():
    _, variables = split_model(create_model("patches", num_classes=5))
    _, shapes = split_model(abstract_model("patches", num_classes=5))
    assert jax.eval_shape(lambda: variables) == shapes
    state_dict = export_state_dict(variables, backbone="patches")
    assert state_dict.keys() == KEYS
    again, report = import_state_dict(state_dict, backbone="patches")
    assert report.num_used == len(KEYS) and not report.ignored
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_its_weight_file_is_converted_loaded_and_exported(
    torch, save_reference, tmp_path
):
    model = create_model("patches", num_classes=5, seed=1)
    state_dict = export_state_dict(split_model(model)[1], backbone="patches")
    source = save_reference(state_dict, tmp_path / "file.pth")
    conversion = convert_checkpoint(source, tmp_path / "out")
    assert (conversion.backbone, conversion.num_classes) == ("patches", 5)
    loaded = load_model(tmp_path / "out")
    images = np.random.default_rng(0).standard_normal((2, 24, 32, 3), np.float32)
    model.eval()
    for found, want in zip(loaded(images), model(images), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    export_checkpoint(tmp_path / "out", tmp_path / "again.pth")
    content = torch.load(tmp_path / "again.pth", weights_only=True)["model_state"]
    assert content.keys() == KEYS
    for key, value in content.items():
        np.testing.assert_array_equal(value.numpy(), state_dict[key])
