"""What a loaded model is given by mistake is told of in a line."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import multigrain_jax
from multigrain_jax.errors import InputError
from multigrain_jax.inference import LoadedModel
from multigrain_jax.opened_model import open_model


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return multigrain_jax.load_model(tiny_checkpoint)


@pytest.mark.parametrize(
    "exponent", [0, -1.0, float("nan"), "nan", "large", True, [3.0, 4.0], {}, 10**400]
)
def test_what_is_no_exponent_is_refused(tiny_checkpoint, exponent):
    with pytest.raises(InputError, match="pooling_exponent: found ") as error:
        multigrain_jax.load_model(tiny_checkpoint, pooling_exponent=exponent)
    assert f"found {exponent!r}, expected a number above 0" in str(error.value)


@pytest.mark.parametrize("path", [None, 5, b"weights", "a\0b"])
def test_what_names_no_weights_is_refused(path):
    with pytest.raises(InputError, match=r"path: found .*, expected a workdir, a step"):
        multigrain_jax.load_model(path)


@pytest.mark.parametrize(
    "photo", [None, 5, np.zeros((40, 40, 3), np.uint8), b"a", "\0"]
)
def test_what_is_no_photo_is_refused(model, photo):
    known = Image.new("RGB", (50, 40))
    message = "photo: found .*, expected a path, or an image that Pillow has opened"
    with pytest.raises(InputError, match=message):
        model.preprocess(photo, 40)
    with pytest.raises(InputError, match=message):
        model.similarity(known, photo, test_size=40)


def test_one_photo_is_preprocessed_at_one_size_in_a_known_mode(model):
    photo = Image.new("RGB", (50, 40))
    with pytest.raises(InputError, match=r"found \(40, 56\), expected one; `embed`"):
        model.preprocess(photo, (40, 56))
    message = "mode: found 'round', expected one of square, rect"
    with pytest.raises(InputError, match=message):
        model.preprocess(photo, 40, "round")
    with pytest.raises(InputError, match=message):
        model.similarity(photo, photo, test_size=40, mode="round")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((1, 0, 32, 3), np.float32),
        [np.zeros((32, 0, 3), np.float32)],
        [],
        None,
        "one.jpg",
        ["one.jpg"],
        [None],
        {},
        [[[1.0], [2.0, 3.0]]],
    ],
)
def test_other_arrays_are_refused(model, images):
    with pytest.raises(InputError, match="images:"):
        model(images)


def test_images_that_leave_a_network_nothing_are_refused(tiny_checkpoint):
    row = dataclasses.replace(multigrain_jax.BACKBONES["tiny"], smallest_side=32)
    opened = open_model(tiny_checkpoint)._replace(backbone=row)
    model = LoadedModel(opened)
    assert model(np.zeros((1, 32, 40, 3), np.float32)).embedding.shape == (1, 8)
    message = "found 31 x 40 pixels, expected at least 32 on each side for tiny"
    for images in (np.zeros((1, 31, 40, 3)), [np.zeros((31, 40, 3))]):
        with pytest.raises(InputError, match=message):
            model(images)
