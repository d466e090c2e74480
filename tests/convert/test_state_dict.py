"""State dicts to variables and back, by the tables."""

import re

import jax
import numpy as np
import pytest

from multigrain_jax.convert.state_dict import (
    COUNTER_REASON,
    export_state_dict,
    import_state_dict,
)
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import abstract_model, create_model, split_model


@pytest.fixture(scope="module")
def resnet18(state_dict_of):
    return state_dict_of("resnet18", p=1.7)


def test_every_leaf_is_filled_and_every_key_accounted_for(resnet18):
    variables, report = import_state_dict(resnet18, backbone="resnet18")
    _, expected = split_model(abstract_model("resnet18"))
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for got, want in zip(
        jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True
    ):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
    counters = [key for key in resnet18 if key.endswith("num_batches_tracked")]
    assert report.ignored == {COUNTER_REASON: len(counters)}
    assert report.num_used == len(resnet18) - len(counters)
    assert variables.pooling_exponent == np.float32(1.7)
    assert variables.whitening == {}


def test_layouts(resnet18):
    variables, _ = import_state_dict(resnet18, backbone="resnet18")
    block = variables.params["trunk"]["stages"]["1"]["0"]
    source = "features.layer2.0"
    for name, here in (("conv1", "conv1"), ("downsample.0", "shortcut_conv")):
        weight = resnet18[f"{source}.{name}.weight"]
        kernel = block[here]["kernel"]
        out, into, row, column = (n - 1 for n in weight.shape)
        assert kernel.shape == (row + 1, column + 1, into + 1, out + 1)
        assert kernel[0, column, 1, 2] == weight[2, 1, 0, column]
    stats = variables.batch_stats["trunk"]["stages"]["1"]["0"]
    for name, here in (("bn2", "bn2"), ("downsample.1", "shortcut_bn")):
        for collection, leaf, torch_leaf in (
            (block, "scale", "weight"),
            (block, "bias", "bias"),
            (stats, "mean", "running_mean"),
            (stats, "var", "running_var"),
        ):
            np.testing.assert_array_equal(
                collection[here][leaf], resnet18[f"{source}.{name}.{torch_leaf}"]
            )
    np.testing.assert_array_equal(
        variables.params["classifier"]["kernel"], resnet18["classifier.weight"].T
    )


def test_a_zoo_state_dict_gets_exponent_one(state_dict_of, resnet18):
    zoo = state_dict_of("plain_torchvision_resnet18")
    assert "fc.weight" in zoo
    variables, report = import_state_dict(zoo, backbone="resnet18")
    assert variables.pooling_exponent == 1
    assert report.num_used + report.ignored[COUNTER_REASON] == len(zoo)
    np.testing.assert_array_equal(
        variables.params["classifier"]["kernel"], zoo["fc.weight"].T
    )
    # The same names behind the original's prefix lead to the same places.
    renamed = {f"features.{key}": zoo[key] for key in zoo if not key.startswith("fc")}
    renamed |= {key: resnet18[key] for key in ("classifier.weight", "classifier.bias")}
    again, _ = import_state_dict(renamed, backbone="resnet18")
    jax.tree.map(
        np.testing.assert_array_equal, again.params["trunk"], variables.params["trunk"]
    )


def test_the_number_of_classes_is_that_of_the_file(resnet18):
    fewer = dict(resnet18)
    for key in ("classifier.weight", "classifier.bias"):
        fewer[key] = resnet18[key][:14]
    variables, _ = import_state_dict(fewer, backbone="resnet18")
    assert variables.params["classifier"]["kernel"].shape == (512, 14)


def test_all_problems_in_one_error(resnet18):
    broken = dict(resnet18)
    del broken["features.layer3.1.bn2.running_var"]
    del broken["features.conv1.weight"]
    broken["features.layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    broken["optimizer.lr"] = np.zeros(())
    broken["features.layer1.0.conv1.weight"] = np.zeros((64, 32, 3, 3), np.float32)
    broken["features.bn1.bias"] = np.zeros(63, np.float32)
    broken["fc.bias"] = resnet18["classifier.bias"]
    with pytest.raises(InputError) as raised:
        import_state_dict(broken, backbone="resnet18")
    text = str(raised.value)
    for line in (
        r"7 in all",
        r"missing: features\.layer3\.1\.bn2\.running_var",
        r"missing: features\.conv1\.weight",
        r"not expected: features\.layer5\.0\.conv1\.weight",
        r"not expected: optimizer\.lr",
        r"layer1\.0\.conv1\.weight: found \[64, 32, 3, 3\], expected \[64, 64, 3, 3\]",
        r"features\.bn1\.bias: found \[63\], expected \[64\]",
        r"fc\.bias and classifier\.bias",
    ):
        assert re.search(line, text), line


def test_the_wrong_backbone_is_said_to_be_wrong(resnet18):
    with pytest.raises(InputError, match="does not fit resnet50"):
        import_state_dict(resnet18, backbone="resnet50")


def test_shapes_are_told_as_the_file_has_them():
    _, variables = split_model(create_model("tiny", num_classes=5, whitened=True))
    broken = export_state_dict(variables, backbone="tiny")
    broken["whitening.pca.pca_P"] = np.zeros((9, 4), np.float32)
    broken["classifier.weight"] = np.zeros((5, 9, 1, 1), np.float32)
    with pytest.raises(InputError) as raised:
        import_state_dict(broken, backbone="tiny")
    for line in (
        "whitening.pca.pca_P: found [9, 4], expected [9, 9]",
        "classifier.weight: found [5, 9, 1, 1], expected [5, 9]",
    ):
        assert line in str(raised.value)
