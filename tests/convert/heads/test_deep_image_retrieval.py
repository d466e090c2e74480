"""deep-image-retrieval's files: AP-GeM's layers, and a PCA read as attributes."""

import os

import numpy as np
import pytest
from helpers.torch_heads import deep_image_retrieval, pickled_as

from multigrain_jax.checkpoint import load_checkpoint

TOLERANCE = 2e-5


@pytest.fixture
def save(torch):
    """(content, path): torch.save while its PCA's class can be found."""

    def save(content, path):
        with pickled_as(content["pca"]["Landmarks_clean"]):
            torch.save(content, path)

    return save


def test_a_resnet_101_gives_the_same_descriptors(
    torch, save, run_tool, descriptors_differ, tmp_path
):
    network = deep_image_retrieval(torch)
    save(network.content, tmp_path / "file.pt")
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pt", tmp_path / "out"
    )
    assert (code, error) == (0, "")
    assert table["descriptor head"] == (
        "deep-image-retrieval: linear 2048 -> 2048, unit length, "
        "whitening 2048 -> 2048, unit length (by its model_options)"
    )
    assert (table["backbone"], table["pooling exponent p"]) == ("resnet101", "2.9")
    assert table["note"] == "learned whitening: Landmarks_clean, to the power 0.25"
    assert table["stripped"] == "module."
    assert "model_options.arch says resnet101_rmac" in table["architecture"]
    assert descriptors_differ(tmp_path / "out", network.describe) < TOLERANCE


@pytest.mark.parametrize("norm_features", [False, True])
def test_its_options_are_followed(
    norm_features, torch, save, run_tool, descriptors_differ, tmp_path
):
    network = deep_image_retrieval(
        torch,
        name="tiny",
        dims=6,
        power=0.5,
        norm_features=norm_features,
        pca_class="sklearn.decomposition._pca",
    )
    save(network.content, tmp_path / "file.pt")
    arguments = "--whitening-power", "0.5"
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pt", tmp_path / "out", *arguments
    )
    assert (code, error) == (0, "")
    assert table["note"].endswith("to the power 0.5")
    begins = "unit length, linear" if norm_features else "linear"
    assert table["descriptor head"].startswith(f"deep-image-retrieval: {begins} 8")
    assert descriptors_differ(tmp_path / "out", network.describe) < TOLERANCE


def test_scikit_learns_own_object_is_read(torch, run_tool, tmp_path):
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors = np.random.default_rng(0).normal(size=(40, 16))
    pca = decomposition.PCA(whiten=True).fit(vectors)
    content = deep_image_retrieval(torch, name="tiny", dims=16).content
    torch.save({**content, "pca": {"mine": pca}}, tmp_path / "file.pt")
    code, _, error = run_tool(
        "convert_checkpoint",
        *(tmp_path / "file.pt", tmp_path / "out", "--whitening-power", "0.5"),
    )
    assert (code, error) == (0, "")
    arrays = load_checkpoint(tmp_path / "out").model["head"]["1"]
    found = (vectors - arrays["mean"]) @ arrays["projection"]
    np.testing.assert_allclose(found, pca.transform(vectors), rtol=1e-4, atol=1e-5)


def test_a_network_without_its_linear_layer(torch, save, run_tool, tmp_path):
    content = deep_image_retrieval(torch, name="tiny", dims=8).content
    content["model_options"]["without_fc"] = True
    save(content, tmp_path / "file.pt")
    code, table, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pt", tmp_path / "out"
    )
    assert code == 0
    assert table["keys ignored (fc, without which the network was built)"] == "2"
    assert "linear" not in table["descriptor head"]


def test_a_pca_that_does_not_whiten_is_one_without_powers(
    torch, save, run_tool, tmp_path
):
    content = deep_image_retrieval(torch, name="tiny", dims=6).content
    pca = content["pca"]["Landmarks_clean"]
    pca.whiten = False
    save(content, tmp_path / "file.pt")
    _, table, _ = run_tool("convert_checkpoint", tmp_path / "file.pt", tmp_path / "out")
    assert table["note"].endswith("Landmarks_clean, a PCA without whitening")
    arrays = load_checkpoint(tmp_path / "out").model["head"]["1"]
    np.testing.assert_array_equal(
        arrays["projection"], pca.components_.T.astype(np.float32)
    )


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def options(**changes):
    return lambda content: content["model_options"].update(changes)


def pca(**changes):
    return lambda content: vars(content["pca"]["Landmarks_clean"]).update(changes)


REFUSED = {
    "another network": (options(arch="resnet101_fpn_rmac"), (), "found resnet101_fpn"),
    "a centre": (options(center_bias=0.5), (), "found model_options' center_bias"),
    "a pooling": (options(pooling="rmac"), (), "found the pooling rmac, expected gem"),
    "another input": (
        lambda content: content["preprocess"].update(std=[1.0, 1.0, 1.0]),
        (),
        "the file's preprocess.std says std=1,1,1: such a network",
    ),
    "a power without a PCA": (
        lambda _: None,
        ("--whitening", "none", "--whitening-power", "0.5"),
        "no whitening is taken; leave out --whitening-power",
    ),
    "a power without whitening": (
        pca(whiten=False),
        ("--whitening-power", "0.5"),
        "no whitening is taken; leave out --whitening-power",
    ),
    "a variance of 0": (
        pca(explained_variance_=np.zeros(16)),
        (),
        "pca, Landmarks_clean: components: found a NaN or an infinity",
    ),
    "fewer variances": (
        pca(explained_variance_=np.ones(3)),
        (),
        "variances [3], expected a variance for each",
    ),
    "no mean": (pca(mean_=None), (), "pca, Landmarks_clean: mean: found object[1]"),
    "code": (pca(random_state=_Evil()), (), "would run code: it asks for posix.system"),
    "not fitted": (
        lambda content: vars(content["pca"]["Landmarks_clean"]).clear(),
        (),
        "a fitted PCA of scikit-learn was expected",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_built_or_not_whole_is_refused(
    kind, torch, save, run_tool, tmp_path
):
    change, arguments, message = REFUSED[kind]
    content = deep_image_retrieval(torch, name="tiny", dims=16).content
    change(content)
    save(content, tmp_path / "file.pt")
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / "file.pt", tmp_path / "out", *arguments
    )
    assert (code, table) == (2, {})
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]
