import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import multigrain_jax
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.errors import InputError
from multigrain_jax.inference import LoadedModel
from multigrain_jax.models.multigrain import create_model, split_model


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    _, variables = split_model(create_model("tiny", num_classes=4, seed=1))
    store = CheckpointStore(folder)
    meta = {"backbone": "tiny", "num_classes": 4, "class_names": ["a", "b", "c", "d"]}
    store.save(7, model=variables, meta=meta)
    store.close()
    return folder


def test_a_checkpoint_gives_features_in_one_call(workdir):
    model = multigrain_jax.load_model(workdir)
    assert (model.backbone, model.step, model.pooling_exponent) == ("tiny", 7, 3.0)
    photo = Image.fromarray(np.full((50, 70, 3), 90, np.uint8))
    output = model(model.preprocess(photo, 40)[None])
    assert output.embedding.shape == (1, 8) and output.logits.shape == (1, 4)
    step_folder = workdir / "checkpoints" / "7"
    again = multigrain_jax.load_model(step_folder)(model.preprocess(photo, 40)[None])
    np.testing.assert_array_equal(output.logits, again.logits)


def test_a_list_of_sizes_equals_one_by_one(workdir):
    model = multigrain_jax.load_model(workdir)
    rng = np.random.default_rng(0)
    sizes = ((33, 40), (50, 35))
    images = [rng.normal(size=(*hw, 3)).astype(np.float32) for hw in sizes]
    together = model(images)
    for row, image in enumerate(images):
        alone = model(image[None])
        np.testing.assert_array_equal(together.embedding[row], alone.embedding[0])


@pytest.mark.parametrize("exponent", [1.0, 2.0, np.inf])
def test_another_exponent_changes_the_pooling_alone(workdir, exponent):
    default = multigrain_jax.load_model(workdir)
    other = multigrain_jax.load_model(workdir, pooling_exponent=exponent)
    images = np.random.default_rng(1).normal(size=(2, 40, 40, 3)).astype(np.float32)
    assert isinstance(other, LoadedModel) and other.pooling_exponent == exponent
    assert not np.allclose(default(images).embedding, other(images).embedding)


def test_preprocessing_normalises_with_the_backbone_statistics():
    photo = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    pixels = multigrain_jax.preprocess(photo, 32, "square")
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, 0], (1 - 0.485) / 0.229, rtol=0.2)
    assert multigrain_jax.preprocess(photo, 40, "rect").shape == (40, 40, 3)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.float32), []],
)
def test_other_arrays_are_refused(workdir, images):
    with pytest.raises(InputError, match="images:"):
        multigrain_jax.load_model(workdir)(images)


def test_a_pytorch_file_is_told_how_to_become_a_checkpoint(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"found a file; .*tools/convert_checkpoint"):
        multigrain_jax.load_model(tmp_path / "weights.pth")


def test_a_model_works_within_a_users_own_program(workdir):
    model = multigrain_jax.load_model(workdir)
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.normal(size=(2, 40, 40, 3)), jnp.float32)
    alone = model(images).embedding
    within = jax.jit(lambda x: model(x).embedding)(images)
    np.testing.assert_allclose(within, alone, rtol=0, atol=1e-6 * np.abs(alone).max())
    # Images that are a constant of the program, as an array of either library.
    for constant in (images, np.asarray(images)):
        scaled = jax.jit(lambda s, x=constant: model(x).embedding * s)(jnp.float32(1))
        np.testing.assert_allclose(scaled, within, rtol=0, atol=1e-6)
        assert jax.eval_shape(lambda x=constant: model(x)).embedding.shape == (2, 8)
    gradient = jax.grad(lambda x: model(x).logits.sum())(images)
    assert np.isfinite(gradient).all() and np.any(gradient != 0)
    each = jax.vmap(lambda x: model(x[None]).embedding[0])(images)
    np.testing.assert_allclose(each, alone, rtol=0, atol=1e-6 * np.abs(alone).max())
