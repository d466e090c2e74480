"""Networks whose weight files look alike are told apart."""

import gzip
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from multigrain_jax.convert.architecture import (
    Claim,
    claims_of,
    require_architecture,
    trunk_digest,
)
from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.convert.state_dict import (
    export_state_dict,
    import_state_dict,
    recognise_backbone,
)
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import abstract_model, split_model

FOLDER = Path(__file__).parent
# The keys and shapes of some of timm's networks, from the package itself.
NETWORKS = json.loads(gzip.decompress((FOLDER / "timm_keys.json.gz").read_bytes()))
TWINS = {"resnetblur18": "resnet18", "resnetaa50": "resnet50"}
TWINS |= {"resnetblur50": "resnet50"}
OWN = {"resnet18": "resnet18", "resnet50": "resnet50"}
OWN |= {"legacy_senet154": "senet154", "pnasnet5large": "pnasnet5large"}
OTHERS = sorted(NETWORKS["architectures"].keys() - TWINS.keys() - OWN.keys())


def zeros(shape):
    """Zeros that take no memory."""
    return np.broadcast_to(np.float32(0), shape)


def state_dict_of(name):
    entries = NETWORKS["architectures"][name]
    return {key: zeros(shape) for key, shape, _ in entries}


def whole_way(state_dict, claims=()):
    """What a conversion does before it looks at numbers."""
    name = recognise_backbone(state_dict)
    return name, require_architecture(name, state_dict, beside={}, claims=claims)


def exported(name):
    _, variables = split_model(abstract_model(name))
    arrays = jax.tree.map(lambda leaf: zeros(leaf.shape), variables)
    return export_state_dict(arrays, backbone=name)


@pytest.mark.parametrize("name", NETWORKS["architectures"])
def test_the_table_of_digests_is_that_of_the_package(name):
    path = FOLDER.parents[1] / "multigrain_jax/convert/keymaps/timm_architectures.json"
    table = json.loads(path.read_text())
    assert (table["package"], table["licence"]) == (
        NETWORKS["package"],
        NETWORKS["licence"],
    )
    assert trunk_digest(state_dict_of(name)) == table["architectures"][name]


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_named_in_one_line(name):
    with pytest.raises(InputError) as raised:
        whole_way(state_dict_of(name))
    assert "\n" not in str(raised.value)
    named = rf"that of timm [\d.]+'s (\w+ or )*{name}( or \w+)* \(the same keys and"
    assert re.search(named, str(raised.value))


# Those whose keys tell, when the file is not whole.
TELLING = {
    "resnet50d": "a deep stem",
    "resnest14d": "a deep stem",
    "seresnet50": "squeeze-and-excitation",
    "skresnet18": "a selective-kernel ResNet",
    "legacy_seresnet50": "an SE-ResNet",
    "nasnetalarge": "a NASNet-A-Large",
}


@pytest.mark.parametrize("name", TELLING)
def test_an_incomplete_file_of_another_network_is_told_by_its_keys(name):
    state_dict = state_dict_of(name)
    del state_dict[next(key for key in state_dict if key.endswith("running_var"))]
    with pytest.raises(InputError, match=TELLING[name]) as raised:
        whole_way(state_dict)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", OWN)
def test_the_backbones_of_the_package_are_accepted(name):
    own = OWN[name]
    claim = Claim(name, "config.json's architecture")
    said = (own, f"{own}, as config.json's architecture says")
    assert whole_way(state_dict_of(name), [claim]) == said


@pytest.mark.parametrize("name", KEYMAPS)
def test_no_backbone_is_taken_for_another_network(name):
    state_dict = exported(name)
    zoo = {key.removeprefix(KEYMAPS[name].prefix): x for key, x in state_dict.items()}
    for keys in (state_dict, zoo):
        found, says = whole_way(keys)
        assert found == name and name in says
        assert says.startswith("assumed: plain") == bool(KEYMAPS[name].caveat)


@pytest.mark.parametrize("name", TWINS)
def test_of_networks_with_the_same_keys_what_is_said_decides(name):
    state_dict, own = state_dict_of(name), TWINS[name]
    assert trunk_digest(state_dict) == trunk_digest(state_dict_of(own))
    found, says = whole_way(state_dict)
    assert found == own
    assert says == f"assumed: plain {own}; anti-aliased variants have the same keys"
    with pytest.raises(InputError, match=f"arch says {name}: such a network"):
        whole_way(state_dict, [Claim(name, "the file's arch")])


def test_a_network_with_other_widths_is_one_line():
    pruned = {
        key: zeros((*x.shape[:1], x.shape[1] // 2, *x.shape[2:]))
        if x.ndim == 4 and not key.startswith(("conv1", "layer1"))
        else x
        for key, x in state_dict_of("resnet50").items()
    }
    assert whole_way(pruned)[0] == "resnet50"
    with pytest.raises(InputError, match=r"other widths in \d\d kernels") as raised:
        import_state_dict(pruned, backbone="resnet50", prefix="module.")
    assert "\n" not in str(raised.value)
    assert "module.layer2.0." in str(raised.value)


def test_a_backbone_by_hand_does_not_make_it_another_network():
    with pytest.raises(
        InputError, match=r"not fit resnet50: it .* timm 1.+'s resnet18"
    ):
        require_architecture(
            "resnet50", state_dict_of("resnet18"), beside={}, claims=()
        )


def test_claims_are_found_where_scripts_put_them(tmp_path):
    loop = {}
    loop["args"] = loop
    levels = [
        {"arch": "ResNet50", "epoch": 3, "model": {"a": 1}},
        {"hyper_parameters": {"model_name": "timm/resnet50.a1_in1k"}},
        {"args": {"aa_layer": "avg", "output_stride": 32}},
        {"pretrained_cfg": '{"architecture": "resnet50"}'},
        {"pretrained_cfg": "{", "arch": 5, "args": [1], "std": (1, 2)},
        {"aa_layer": np.ones(3), "mean": np.ones(3)},
        loop,
    ]
    config = tmp_path / "config.json"
    text = '{"pretrained_cfg": {"mean": [0.485, 0.456, 0.406]}}'
    config.write_text(text, encoding="utf-8-sig")
    assert claims_of(levels, {"architecture": "x" * 99}, config) == (
        ("resnet50", "the file's arch"),
        ("resnet50", "the file's hyper_parameters.model_name"),
        ("aa_layer=avg", "the file's args.aa_layer"),
        ("resnet50", "the file's pretrained_cfg.architecture"),
        ("x" * 59 + "…", "the file's metadata's architecture"),
        ("mean=0.485,0.456,0.406", "config.json's pretrained_cfg.mean"),
    )
