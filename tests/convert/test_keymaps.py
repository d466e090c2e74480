"""The key maps against the keys of the original's files, and against each other."""

import jax
import numpy as np
import pytest

from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.convert.state_dict import export_state_dict, recognise_backbone
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import BACKBONES, abstract_model, split_model


def export_shapes(name, **settings):
    """The state dict of a backbone with zeros, each of which takes no memory."""
    _, variables = split_model(abstract_model(name, **settings))
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), variables
    )
    return export_state_dict(zeros, backbone=name)


# Those of which there is a list of the original's keys.
LISTED = ("resnet18", "resnet50", "resnet101", "resnet152", "senet154")
LISTED += ("pnasnet5large", "nasnetamobile")


@pytest.fixture(scope="module", params=KEYMAPS)
def exported(request):
    return request.param, export_shapes(request.param)


def assert_keys_of_manifest(state_dict, manifest):
    found = {key: (list(x.shape), str(x.dtype)) for key, x in state_dict.items()}
    assert found == {key: (shape, dtype) for key, shape, dtype in manifest["entries"]}


def test_every_backbone_has_a_key_map():
    assert KEYMAPS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("exported", LISTED, indirect=True)
def test_the_keys_are_those_of_the_original(exported, golden_manifest):
    name, state_dict = exported
    assert_keys_of_manifest(state_dict, golden_manifest(name))


def test_the_keys_of_a_whitened_model_are_those_of_the_original(golden_manifest):
    whitened = export_shapes("resnet50", whitened=True)
    assert_keys_of_manifest(whitened, golden_manifest("resnet50_whitened"))


def test_only_its_own_backbone_recognises_a_file(exported):
    name, state_dict = exported
    zoo = {key.removeprefix(KEYMAPS[name].prefix): x for key, x in state_dict.items()}
    for keys in (state_dict, zoo):
        assert recognise_backbone(keys) == name
        assert [other for other in KEYMAPS if KEYMAPS[other].recognises(keys)] == [name]


@pytest.mark.parametrize(
    "modules",
    [
        [f"layer3.{block}.conv2" for block in range(9)],  # more than ResNet-34
        [f"layer3.{block}.conv3" for block in range(50)],  # more than ResNet-152
        ["layer0.conv1", "layer1.0.conv1"],  # a ResNeXt of pretrainedmodels
        [],
    ],
)
def test_a_file_of_another_network_is_not_recognised(modules):
    state_dict = {f"{name}.weight": np.zeros(1) for name in ("conv1", *modules)}
    with pytest.raises(InputError, match=r"not recognised .* --backbone NAME"):
        recognise_backbone(state_dict)


def test_equal_keys_are_told_apart_by_a_shape():
    plain = {
        key: np.zeros(x.shape) for key, x in export_shapes("resnext50_32x4d").items()
    }
    wider = "features.layer1.0.conv2.weight"
    for shape, name in (
        ((64, 64, 3, 3), "resnet50"),
        ((128, 4, 3, 3), "resnext50_32x4d"),
        ((128, 128, 3, 3), "wide_resnet50_2"),
    ):
        assert recognise_backbone({**plain, wider: np.zeros(shape)}) == name
    with pytest.raises(InputError, match="not recognised"):
        recognise_backbone({**plain, wider: np.zeros((128, 2, 3, 3))})
