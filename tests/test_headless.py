"""A model without a classifier, from its making to its descriptors and its export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import multigrain_jax
from configs import embed as embed_config
from configs import whiten as whiten_config
from multigrain_jax.checkpoint import CheckpointStore, describe_checkpoint
from multigrain_jax.convert.state_dict import export_state_dict, import_state_dict
from multigrain_jax.descriptors.folder import read_head, shard_path
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import (
    abstract_model,
    class_logits,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.opened_model import open_model
from multigrain_jax.tasks import embed, whiten
from tools import export_serving

SIZE = 40


def arrays(**settings):
    return split_model(create_model("tiny", seed=1, **settings))[1]


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """A workdir with the weights of `tiny_checkpoint` but for its classifier."""
    folder = tmp_path_factory.mktemp("headless")
    store = CheckpointStore(folder)
    meta = {"backbone": "tiny", "num_classes": 0, "class_names": [], "config": None}
    store.save(5, model=arrays(num_classes=0), meta=meta)
    store.close()
    return folder


def test_only_the_classifier_is_missing():
    with_classes, without = arrays(num_classes=3), arrays(num_classes=0)
    assert (with_classes.num_classes, without.num_classes) == (3, 0)
    assert set(without.params) == {"trunk"}
    rest = {"trunk": with_classes.params["trunk"]}
    jax.tree.map(
        np.testing.assert_array_equal, without, with_classes._replace(params=rest)
    )
    _, shapes = split_model(abstract_model("tiny", num_classes=0))
    assert shapes == jax.eval_shape(lambda: without)


@pytest.mark.parametrize("settings", [{}, {"whitened": True}])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_outputs_are_those_with_a_classifier(settings, mode):
    images = jnp.asarray(
        np.random.default_rng(0).standard_normal((3, SIZE, SIZE, 3), np.float32)
    )
    outputs = []
    for num_classes in (0, 3):
        model = create_model("tiny", seed=1, num_classes=num_classes, **settings)
        getattr(model, mode)()
        graphdef, variables = split_model(model)
        run = jax.jit(lambda v, x, graphdef=graphdef: merge_model(graphdef, v)(x))
        outputs.append(run(variables, images))
    without, with_classes = outputs
    assert without.logits is None and with_classes.logits.shape == (3, 3)
    np.testing.assert_array_equal(without.embedding, with_classes.embedding)
    np.testing.assert_array_equal(
        without.normalized_embedding, with_classes.normalized_embedding
    )
    with pytest.raises(ValueError, match="num_classes = 0"):
        class_logits(without.logits)


@pytest.mark.parametrize("make", (create_model, abstract_model))
def test_fewer_than_no_classes_are_refused(make):
    with pytest.raises(InputError, match="num_classes: found -1, expected the number"):
        make("tiny", num_classes=-1)


def test_a_checkpoint_opens_and_serves(headless, tiny_checkpoint):
    leaves = [leaf.path for leaf in describe_checkpoint(headless).leaves]
    assert leaves and not any("classifier" in path for path in leaves)
    opened = open_model(headless)
    assert (opened.num_classes, opened.class_names) == (0, [])
    model = multigrain_jax.load_model(headless)
    images = np.random.default_rng(0).standard_normal((2, SIZE, SIZE, 3), np.float32)
    found = model(images)
    want = multigrain_jax.load_model(tiny_checkpoint)(images)
    assert found.logits is None
    np.testing.assert_array_equal(found.embedding, want.embedding)
    listed = model([images[0], images[1, :33]])
    assert listed.logits is None and listed.embedding.shape == (2, 8)
    np.testing.assert_allclose(listed.embedding[0], found.embedding[0], rtol=1e-5)


def test_a_file_for_serving_has_no_logits(headless):
    exported = export_serving.export_model(
        open_model(headless), SIZE, platforms=["cpu"]
    )
    photos = np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8)
    output = exported.call(photos)
    assert set(output) == {"embedding", "normalized_embedding"}
    row = multigrain_jax.BACKBONES["tiny"]
    scaled = photos.astype(np.float32) / np.float32(255)
    images = (scaled - np.float32(row.mean)) / np.float32(row.std)
    want = multigrain_jax.load_model(headless)(images).embedding
    np.testing.assert_allclose(output["embedding"], want, rtol=2e-5, atol=2e-6)


def descriptors_of(checkpoint, photo_folder, workdir):
    config = embed_config.get_config()
    config.init_from = str(checkpoint)
    config.data.root = str(photo_folder)
    config.data.split = "train"
    config.test_size = SIZE
    config.batch_size = 8
    embed.run(config, workdir)
    folder = workdir / "descriptors"
    return read_head(folder).settings, np.load(shard_path(folder, 0))


def test_photos_are_embedded_as_with_a_classifier(
    headless, tiny_checkpoint, photo_folder, tmp_path
):
    settings, found = descriptors_of(headless, photo_folder, tmp_path / "without")
    _, want = descriptors_of(tiny_checkpoint, photo_folder, tmp_path / "with")
    assert (settings.dim, settings.whitened) == (8, False)
    np.testing.assert_array_equal(found, want)


def test_a_whitening_is_fitted_and_nothing_folded(
    headless, tiny_checkpoint, photo_folder, tmp_path
):
    whitened = []
    for name, checkpoint in (("without", headless), ("with", tiny_checkpoint)):
        config = whiten_config.get_config()
        config.init_from = str(checkpoint)
        config.data.root = str(photo_folder)
        config.data.split = config.report_split = "train"
        config.test_size = 48
        config.batch_size = 8
        results = whiten.run(config, tmp_path / name)
        assert ("folding_error" in results) == (name == "with")
        assert ("after/top1" in results) == (name == "with")
        assert "after/class_map" in results
        whitened.append(multigrain_jax.load_model(tmp_path / name))
    photo = Image.open(next(photo_folder.rglob("*.png")))
    images = whitened[0].preprocess(photo, 48)[None]
    without, with_classes = (model(images) for model in whitened)
    assert without.logits is None
    np.testing.assert_array_equal(without.embedding, with_classes.embedding)


@pytest.mark.parametrize("name", ["tiny", "nasnetamobile"])
def test_a_state_dict_has_no_classifier_and_comes_back(name):
    _, variables = split_model(abstract_model(name, num_classes=0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), variables)
    state_dict = export_state_dict(variables, backbone=name)
    assert not any("classifier" in key or "linear" in key for key in state_dict)
    again, _ = import_state_dict(state_dict, backbone=name)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
