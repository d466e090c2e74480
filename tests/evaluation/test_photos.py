"""Photo files are embedded together as each is alone."""

import numpy as np
import pytest
from helpers.photos import noise_photo

import multigrain_jax
from multigrain_jax.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return multigrain_jax.load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    sizes = ((48, 40), (40, 48), (60, 36))
    found = [folder / f"{number}.png" for number in range(11)]
    for number, path in enumerate(found):
        noise_photo(number, sizes[number % 3]).save(path)
    return found


@pytest.mark.parametrize("mode", ["square", "rect"])
def test_descriptors_are_those_of_photos_one_by_one(model, paths, mode):
    found = model.embed(paths, test_size=40, mode=mode, batch_size=4)
    assert found.shape == (11, 8) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    for row, path in zip(found, paths, strict=True):
        pixels = model.preprocess(path, 40, mode)
        alone = np.asarray(model(pixels[None]).normalized_embedding[0])
        np.testing.assert_allclose(row, alone, rtol=0, atol=2e-6)
    again = model.embed([str(paths[3])], test_size=40, mode=mode)
    np.testing.assert_allclose(again[0], found[3], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("given", "mode", "message"),
    [
        ([], "rect", r"paths: found \[\], expected a list of at least one photo"),
        ("one.jpg", "rect", "paths: found 'one.jpg', expected a list"),
        (["one.jpg"], "round", "mode: found 'round', expected one of square, rect"),
    ],
)
def test_what_is_no_list_of_photos_is_refused(model, given, mode, message):
    with pytest.raises(InputError, match=message):
        model.embed(given, test_size=40, mode=mode)


def test_photos_that_cannot_be_read_are_named(model, paths, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    wrong = [tmp_path / "bad.jpg", paths[0], tmp_path / "gone.jpg"]
    with pytest.raises(InputError, match="2 of 3 photos could not be read") as error:
        model.embed(wrong, test_size=40)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 2
    assert "bad.jpg: " in lines[0] and "gone.jpg: " in lines[1]
