"""cirtorch's files: the trunk, the learned p, and one whitening after the other."""

import numpy as np
import pytest
from helpers.torch_heads import cirtorch

from multigrain_jax.checkpoint import load_checkpoint

TOLERANCE = 2e-5


def test_a_resnet_50_gives_the_same_descriptors(
    torch, run_tool, descriptors_differ, tmp_path
):
    network = cirtorch(torch)
    torch.save(network.content, tmp_path / "file.pth")
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out"
    )
    assert (code, error) == (0, "")
    assert table["descriptor head"] == (
        "cirtorch: unit length, linear 2048 -> 2048, unit length, "
        "whitening 2048 -> 2048, unit length (by its meta)"
    )
    assert table["pooling exponent p"] == "2.75"
    # p is of the original's files too, of which these are none.
    assert table["source"] == "file.pth (model zoo)" and "CC BY" not in table["licence"]
    assert table["architecture"] == "resnet50, as the file's meta.architecture says"
    assert table["note"] == "learned whitening: a-data-set"
    assert descriptors_differ(tmp_path / "out", network.describe) < TOLERANCE


@pytest.mark.parametrize(
    ("trained", "fitted", "arguments"),
    [
        (False, False, ()),
        (True, False, ()),
        (False, True, ()),
        (True, True, ("--whitening", "a-data-set")),
    ],
)
def test_a_whitening_is_there_or_not(
    trained, fitted, arguments, torch, run_tool, descriptors_differ, tmp_path
):
    network = cirtorch(torch, name="tiny", trained=trained, fitted=fitted)
    torch.save(network.content, tmp_path / "file.pth")
    code, _, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out", *arguments
    )
    assert (code, error) == (0, "")
    model = load_checkpoint(tmp_path / "out").model
    assert len(model.get("head", ())) == trained + fitted
    assert descriptors_differ(tmp_path / "out", network.describe) < TOLERANCE


def test_a_whitening_is_left_out_as_asked(torch, run_tool, tmp_path):
    digests = []
    for fitted, arguments in ((True, ("--whitening", "none")), (False, ())):
        network = cirtorch(torch, name="tiny", fitted=fitted)
        torch.save(network.content, tmp_path / "file.pth")
        workdir = tmp_path / f"out-{fitted}"
        _, table, _ = run_tool(
            "convert_checkpoint", tmp_path / "file.pth", workdir, *arguments
        )
        assert table["note"] == "learned whitening: none"
        digests.append(table["digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pooling", ["mac", "spoc"])
def test_poolings_without_a_learned_p(pooling, torch, run_tool, tmp_path):
    content = cirtorch(torch, name="tiny", trained=False, fitted=False).content
    del content["state_dict"]["pool.p"]
    content["meta"]["pooling"] = pooling
    torch.save(content, tmp_path / "file.pth")
    code, table, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out"
    )
    exponent = {"mac": "inf", "spoc": "1"}[pooling]
    assert (code, table["pooling exponent p"]) == (0, exponent)


def meta(**changes):
    return lambda content: content["meta"].update(changes)


def learned(**changes):
    return lambda content: content["meta"]["Lw"].update(changes)


def tensors(key, make):
    def change(content):
        content["state_dict"].pop(key, None)
        if make is not None:
            content["state_dict"][key] = make

    return change


REFUSED = {
    "another network": (meta(architecture="vgg16"), (), "found vgg16 with the pooling"),
    "R-MAC": (meta(pooling="rmac"), (), "with the pooling rmac, expected a ResNet"),
    "regions": (meta(regional=True), (), "found meta's regional, which is not built"),
    "locally": (meta(local_whitening=True), (), "found meta's local_whitening, which"),
    "another input": (
        meta(mean=[0.5, 0.5, 0.5]),
        (),
        "the file's meta.mean says mean=0.5,0.5,0.5: such a network",
    ),
    "several": (
        learned(another={"ss": {}}),
        (),
        "found the learned whitenings a-data-set, another, expected one; name one",
    ),
    "another name": (lambda _: None, ("--whitening", "b"), "a-data-set, expected b;"),
    "a power": (lambda _: None, ("--whitening-power", "1"), "--whitening-power"),
    "several scales": (
        learned(**{"a-data-set": {"ms": {"m": np.ones(3), "P": np.ones((3, 3))}}}),
        (),
        "one for a single scale was expected",
    ),
    "shapes that differ": (
        learned(**{"a-data-set": {"ss": {"m": np.ones(3), "P": np.ones((3, 4))}}}),
        (),
        "found components [3, 4] and a mean of 3, expected as many columns",
    ),
    "other channels": (
        learned(**{"a-data-set": {"ss": {"m": np.ones(3), "P": np.ones((3, 3))}}}),
        (),
        "projection 1 takes 3 channels, expected the 8 that come before it",
    ),
    "NaN": (
        learned(**{"a-data-set": {"ss": {"m": np.full(3, np.nan), "P": np.eye(3)}}}),
        (),
        "mean: found a NaN or an infinity",
    ),
    "no p": (tensors("pool.p", None), (), "pool.p: missing; expected, as meta's"),
    "a p for each channel": (
        tensors("pool.p", np.ones(8, np.float32)),
        (),
        "pool.p: found [1.0, 1.0, 1.0], expected one pooling exponent above 0",
    ),
    "no whitening layer": (
        lambda content: [
            content["state_dict"].pop(f"whiten.{leaf}") for leaf in ("weight", "bias")
        ],
        (),
        "whiten.weight: missing; expected, as meta has a whitening",
    ),
    "half a trunk": (
        tensors("features.4.1.bn2.bias", None),
        (),
        "missing: layer1.1.bn2.bias\nThese are torchvision's names for the keys of",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_built_or_not_whole_is_refused(
    kind, torch, run_tool, as_tensors, tmp_path
):
    change, arguments, message = REFUSED[kind]
    content = cirtorch(torch, name="tiny").content
    change(content)
    content["state_dict"] = as_tensors(content["state_dict"])
    torch.save(content, tmp_path / "file.pth")
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out", *arguments
    )
    assert (code, table) == (2, {})
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]
