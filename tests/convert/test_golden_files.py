"""Files of every backbone go through the tool and give what the original gave."""

import shutil
import sys

import jax
import numpy as np
import pytest

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.state_dict import export_state_dict, import_state_dict
from multigrain_jax.inference import LoadedModel
from multigrain_jax.models.multigrain import variables_of
from multigrain_jax.opened_model import open_model

TOLERANCE = 2e-5  # of the largest value
# The formats of torch.save that are read: both of the smaller networks, one of those
# whose conversions take longest. Reading a format is the same for all.
REFERENCES = {
    "resnet18": ("old", "new"),
    "resnet50": ("old", "new"),
    "resnet50_whitened": ("new",),
    "resnet101": ("old",),
    "resnet152": ("new",),
    "senet154": ("old",),
    "nasnetamobile": ("old", "new"),
    "pnasnet5large": ("new",),
}
# Manifest of a zoo's file -> the reference with the same weights, the kind of file.
ZOO_FILES = {
    "plain_torchvision_resnet18": ("resnet18", ".pth"),
    "plain_cadene_senet154": ("senet154", ".safetensors"),
    "plain_cadene_nasnetamobile": ("nasnetamobile", ".safetensors"),
    "plain_cadene_nasnetamobile_1001": ("nasnetamobile", ".pth"),
    "plain_cadene_pnasnet5large_1001": ("pnasnet5large", ".safetensors"),
}
BACKGROUND = 7.0


def fast_first(names):
    return [
        name if "resnet18" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def assert_equal_trees(found, want):
    assert jax.tree.structure(found) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, found, want)


@pytest.mark.parametrize("name", fast_first(REFERENCES))
def test_the_files_of_a_reference_give_the_original_outputs(
    name,
    golden_manifest,
    golden_dir,
    golden_weights,
    state_dict_of,
    save_reference,
    run_tool,
    tmp_path,
):
    backbone, _, whitened = name.partition("_")
    num_parameters = golden_manifest(backbone)["num_params_learn_p_false"]
    if whitened:
        num_parameters += 1000  # the constant channel's column of the classifier
    state_dict = state_dict_of(name)
    digests = set()
    for file_format in REFERENCES[name]:
        source = save_reference(state_dict, tmp_path / "file.pth", file_format)
        code, table, error = run_tool(
            "convert_checkpoint", source, tmp_path / file_format
        )
        assert (code, error) == (0, "")
        assert (table["backbone"], table["classes"]) == (backbone, "1000")
        assert (table["pooling exponent p"], table["beta"]) == ("3", "0.625")
        assert table["whitening"] == ("yes" if whitened else "no")
        assert table["parameters"] == f"{num_parameters:,}"
        counts = [int(table[row]) for row in table if row.startswith("keys ")]
        assert sum(counts) == len(state_dict)
        digests.add(table["digest"])
        source.unlink()
    assert len(digests) == 1

    opened = open_model(tmp_path / file_format)
    model = LoadedModel(opened)
    for file_format in REFERENCES[name]:
        shutil.rmtree(tmp_path / file_format)
    # The arrays on which the backbones' own tests compare every map and exponent.
    variables, _ = import_state_dict(state_dict, backbone=backbone)
    assert_equal_trees(opened.variables, variables)
    exported = export_state_dict(variables, backbone=backbone)
    assert_equal_trees(exported, state_dict)

    with np.load(golden_dir / "models" / f"{name}.npz") as file:
        golden = dict(file)
    images = golden_weights.images(0, 193, 257)
    prefix = "direct/193x257" if whitened else "193x257/p3"
    if "list/p3/embedding_f64" in golden:  # one image of each of two sizes
        prefix = "list/p3"
        images = [golden_weights.images(0, 224, 224)[0], images[1]]
    output = model(images)
    embedding = golden[f"{prefix}/embedding_f64"]
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    for found, want in (
        (output.embedding, embedding),
        (output.normalized_embedding, embedding / (length + 1e-6)),
        (output.logits, golden[f"{prefix}/classifier_output_f64"]),
    ):
        assert np.abs(found - want).max() < TOLERANCE * np.abs(want).max()


def zoo_state_dict(manifest, reference):
    """The reference's weights under a zoo's keys; a 1001st class comes first."""
    zoo = {}
    for key, shape, _ in manifest["entries"]:
        module, _, leaf = key.rpartition(".")
        candidates = (f"features.0.base_net.{key}", f"features.{key}")
        if module in ("last_linear", "fc"):
            candidates = (f"classifier.{leaf}",)
        (value,) = [reference[name] for name in candidates if name in reference]
        if len(shape) and len(value) == shape[0] - 1:
            first = np.full((1, *shape[1:]), BACKGROUND, np.float32)
            value = np.concatenate([first, value])
        assert list(value.shape) == shape
        zoo[key] = value
    return zoo


@pytest.mark.parametrize("name", fast_first(ZOO_FILES))
def test_a_zoo_file_gives_the_same_weights_with_exponent_one(
    name, torch, golden_manifest, state_dict_of, run_tool, tmp_path, monkeypatch
):
    backbone, suffix = ZOO_FILES[name]
    reference = state_dict_of(backbone)
    manifest = golden_manifest(name)
    zoo = zoo_state_dict(manifest, reference)
    source = tmp_path / f"file{suffix}"
    if suffix == ".pth":
        torch.save({k: torch.from_numpy(np.asarray(v)) for k, v in zoo.items()}, source)
    else:
        pytest.importorskip("safetensors.numpy").save_file(zoo, source)
    monkeypatch.setitem(sys.modules, "torch", None)  # not needed to convert
    code, table, error = run_tool("convert_checkpoint", source, tmp_path / "out")
    assert (code, error) == (0, "")
    assert (table["backbone"], table["classes"]) == (backbone, "1000")
    assert table["pooling exponent p"] == "1"
    has_background = name.endswith("1001")
    assert ("row 0 (background)" in table.get("note", "")) == has_background
    found = variables_of(load_checkpoint(tmp_path / "out").model)
    shutil.rmtree(tmp_path / "out")
    want, _ = import_state_dict(reference, backbone=backbone)
    one = np.array(1, np.float32)
    assert_equal_trees(found, want._replace(pooling_exponent=one))

    if has_background and backbone == "nasnetamobile":
        arguments = source, tmp_path / "kept", "--keep-background"
        code, table, error = run_tool("convert_checkpoint", *arguments)
        assert (code, error, table["classes"]) == (0, "", "1001")
        kept = variables_of(load_checkpoint(tmp_path / "kept").model)
        classifier = kept.params["classifier"]
        np.testing.assert_array_equal(classifier["kernel"][:, 0], BACKGROUND)
        rest = {"kernel": classifier["kernel"][:, 1:], "bias": classifier["bias"][1:]}
        assert_equal_trees(rest, want.params["classifier"])
    source.unlink()
