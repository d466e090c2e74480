"""The layouts of packages, by the lists of keys that their own code gave."""

import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.torch_resnet import arrays_of, make_torch_resnet

from multigrain_jax.convert.architecture import trunk_digest
from multigrain_jax.convert.layouts import LAYOUTS, PACKAGES, state_dict_in_layout
from multigrain_jax.convert.state_dict import import_state_dict
from multigrain_jax.errors import InputError
from multigrain_jax.models.heads import DescriptorHead, Projection
from multigrain_jax.models.multigrain import abstract_model, split_model

FOLDER = Path(__file__).parent
TIMM = json.loads(gzip.decompress((FOLDER / "timm_keys.json.gz").read_bytes()))
DIGESTS = FOLDER.parents[1] / "multigrain_jax/convert/keymaps/timm_architectures.json"


def zeros_of(backbone, **settings):
    """Variables of zeros that take no memory."""
    _, variables = split_model(abstract_model(backbone, **settings))
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), variables
    )


@pytest.mark.parametrize("backbone", PACKAGES["timm"])
def test_the_trunk_is_that_of_timm(backbone):
    found = state_dict_in_layout(zeros_of(backbone), backbone=backbone, layout="timm")
    name = PACKAGES["timm"][backbone]
    table = json.loads(DIGESTS.read_text())["architectures"]
    assert trunk_digest(found) == table[name]
    if name in TIMM["architectures"]:
        want = {key: (tuple(shape), t) for key, shape, t in TIMM["architectures"][name]}
        assert {k: (x.shape, str(x.dtype)) for k, x in found.items()} == want


@pytest.mark.parametrize("backbone", PACKAGES["torchvision"])
def test_torchvisions_is_the_same(backbone):
    zeros = zeros_of(backbone)
    found, timms = (
        state_dict_in_layout(zeros, backbone=backbone, layout=layout)
        for layout in ("torchvision", "timm")
    )
    assert found.keys() == timms.keys() and found["fc.weight"].shape[0] == 1000


def test_a_network_of_torchvisions_layout_comes_back_and_loads(torch):
    network = make_torch_resnet(
        torch, block="basic", stages=(2, 2, 2, 2), num_classes=7
    )
    want = arrays_of(network)
    variables, _ = import_state_dict(want, backbone="resnet18")
    found = state_dict_in_layout(variables, backbone="resnet18", layout="torchvision")
    assert found.keys() == want.keys()
    for key, value in found.items():
        assert value.dtype == want[key].dtype
        np.testing.assert_array_equal(value, want[key])
    tensors = {key: torch.from_numpy(value.copy()) for key, value in found.items()}
    network.load_state_dict(tensors, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_classes_there_is_no_classifier(layout):
    zeros = zeros_of("resnet18", num_classes=0)
    found = state_dict_in_layout(zeros, backbone="resnet18", layout=layout)
    assert not any("fc" in key or "classifier" in key for key in found)


HEAD = DescriptorHead("sscd", (Projection(5, offset="bias"),))
REFUSED = [
    ("resnet18", {"whitened": True}, "timm", "a whitening was found .* or as original"),
    ("resnet18", {"whitened": True, "num_components": 9}, "torchvision", "a whitening"),
    *(
        ("resnet18", {"head": HEAD}, layout, "descriptor head was")
        for layout in LAYOUTS
    ),
    ("senet154", {}, "torchvision", "torchvision has no senet154, expected one of res"),
    ("nasnetamobile", {}, "timm", "timm has no nasnetamobile"),
    ("resnext101_32x4d", {}, "torchvision", "torchvision has no resnext101_32x4d"),
    ("tiny", {}, "torchvision", "the layout original takes every backbone"),
    ("tiny", {}, "keras", "found 'keras', expected one of original, torchvision, timm"),
]


@pytest.mark.parametrize(("backbone", "settings", "layout", "message"), REFUSED)
def test_what_a_layout_has_no_place_for_is_refused(backbone, settings, layout, message):
    zeros = zeros_of(backbone, **settings)
    with pytest.raises(InputError, match=message):
        state_dict_in_layout(zeros, backbone=backbone, layout=layout)
