"""Photo files are embedded together as each is alone."""

import numpy as np
import pytest
from helpers.photos import noise_photo, turned_jpeg
from PIL import Image

import multigrain_jax
from configs import embed
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors.folder import shard_path
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.tasks import embed as run_embed


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
        (None, "rect", "paths: found None, expected a list"),
        (b"one.jpg", "rect", "paths: found b'one.jpg', expected a list"),
        (["one.jpg", None], "rect", "paths: found None as number 1, expected paths of"),
        (["a\0.jpg"], "rect", "paths: found 'a.x00.jpg' as number 0, expected paths"),
        (
            [Image.new("RGB", (40, 40))],
            "rect",
            "found a value of the type Image as number 0, .*go through `preprocess`",
        ),
        (["one.jpg"], "round", "mode: found 'round', expected one of square, rect"),
    ],
)
def test_what_is_no_list_of_photos_is_refused(model, given, mode, message):
    with pytest.raises(InputError, match=message):
        model.embed(given, test_size=40, mode=mode)


NO_SIZES = (0, -5, 31, 40.5, True, "40", (), (40, 0), (40, 40), {40: 1}, float("nan"))


@pytest.mark.parametrize("size", NO_SIZES)
def test_what_is_no_size_is_refused(model, paths, size):
    calls = (
        lambda: model.embed(paths, test_size=size),
        lambda: model.similarity(*paths[:2], test_size=size),
        lambda: model.preprocess(paths[0], size),
    )
    for call in calls:
        with pytest.raises(InputError, match="test_size: found ") as error:
            call()
        assert f"found {size!r}, expected a whole number of pixels" in str(error.value)


def test_sizes_may_be_numbers_of_numpy(model, paths):
    want = model.embed(paths[:2], test_size=40)
    found = model.embed(paths[:2], test_size=np.int32(40), batch_size=np.int64(2))
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("count", [0, -3, 2.5, True, None, "8"])
def test_a_batch_has_a_photo_at_least(model, paths, count):
    message = "expected a whole number of at least 1"
    with pytest.raises(InputError, match=f"batch_size: found {count!r}, {message}"):
        model.embed(paths, test_size=40, batch_size=count)


def test_a_word_that_says_how_to_decode_is_a_known_one(model, paths):
    message = "decode: found 'auto', expected one of fast, exact"
    with pytest.raises(InputError, match=message):
        model.embed(paths, test_size=40, decode="auto")


@pytest.mark.parametrize(
    "found", ["viewers", "plain, slow", "viewer, background #ffffff", "", 5, ["plain"]]
)
def test_a_record_of_decoding_is_a_known_one(model, paths, found):
    expected = "expected one of viewer, upright, plain, or what the settings of a"
    with pytest.raises(InputError, match="decoding: found ") as error:
        model.embed(paths, test_size=40, decoding=found)
    assert f"found {found!r}, {expected}" in str(error.value)


def test_photos_are_decoded_as_a_record_says(model, tmp_path):
    stored = noise_photo(3, (400, 300))
    path, turned = tmp_path / "photo.jpg", tmp_path / "turned.png"
    path.write_bytes(turned_jpeg(stored, 6))
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(turned)

    def descriptor(of=path, **how):
        return model.embed([of], test_size=40, **how)[0]

    upright, fast = descriptor(turned), descriptor()
    for same in ("viewer, background #ffffff, depth metadata, fast", "upright, fast"):
        np.testing.assert_array_equal(descriptor(decoding=same), fast)
    np.testing.assert_array_equal(
        descriptor(decoding=VIEWER.record(), decode="fast"), fast
    )
    for same in (None, "upright", VIEWER.record()):
        np.testing.assert_allclose(descriptor(decoding=same), upright, atol=2e-6)
    plain = descriptor(decoding="plain")
    stored_alone = tmp_path / "stored.png"
    with Image.open(path) as photo:
        photo.convert("RGB").save(stored_alone)
    # The tag of its turn is no part of the pixels.
    np.testing.assert_allclose(
        plain, descriptor(stored_alone, decoding="plain"), atol=2e-6
    )
    assert np.abs(plain - upright).max() > 1e-3
    assert np.abs(fast - upright).max() > 1e-4
    exact = descriptor(decoding="plain, fast", decode="exact")
    np.testing.assert_array_equal(exact, plain)


def test_embeddings_at_several_sizes_are_averaged(model, paths):
    sizes = [40, 56, 48]
    total = 0
    for size in sizes:
        images = [model.preprocess(path, size, "rect") for path in paths]
        total = total + np.asarray(model(images).embedding, np.float64)
    want = total / np.linalg.norm(total, axis=1, keepdims=True)
    found = model.embed(paths, test_size=sizes, mode="rect", batch_size=4)
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-6)
    alike = model.similarity(*paths[:2], test_size=sizes, mode="rect")
    assert alike == pytest.approx(float(want[0] @ want[1]), abs=1e-5)
    alone = model.embed(paths, test_size=40, mode="rect")
    np.testing.assert_array_equal(
        model.embed(paths, test_size=(40,), mode="rect"), alone
    )
    assert np.abs(found - alone).max() > 1e-3


def test_photos_that_cannot_be_read_are_named(model, paths, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    wrong = [tmp_path / "bad.jpg", paths[0], tmp_path / "gone.jpg"]
    with pytest.raises(InputError, match="2 of 3 photos could not be read") as error:
        model.embed(wrong, test_size=40)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 2
    assert "bad.jpg: " in lines[0] and "gone.jpg: " in lines[1]


SEARCH = {"test_size": 40, "test_mode": "square", "pooling_exponent": 2.5}


@pytest.mark.parametrize(
    ("meta", "p"),
    [
        ({"published": {"name": "x", "search": SEARCH}}, 2.5),
        ({"published": {"search": {**SEARCH, "pooling_exponent": None}}}, 3.0),
        ({"config": {"test_size": 40, "test_mode": "square"}}, 3.0),
        ({"config": {"test_size": [40, 56], "test_mode": "square"}}, 3.0),
    ],
)
def test_python_and_the_task_give_a_photo_the_same_descriptor(meta, p, tmp_path):
    _, variables = split_model(create_model("tiny", num_classes=0, seed=1))
    store = CheckpointStore(tmp_path / "weights")
    of_model = {"backbone": "tiny", "num_classes": 0, "class_names": []}
    store.save(7, model=variables, meta=of_model | meta)
    store.close()
    (tmp_path / "photos").mkdir()
    paths = [tmp_path / "photos" / name for name in ("large.jpg", "small.png")]
    for path, size in zip(paths, ((400, 300), (70, 50)), strict=True):
        noise_photo(1, size).save(path)
    config = embed.get_config()
    config.init_from, config.data.root = str(tmp_path / "weights"), str(paths[0].parent)
    config.descriptor_dtype = "float32"
    config.batch_size = 8
    run_embed.run(config, tmp_path / "w")
    folder = tmp_path / "w" / "descriptors"
    (rows,) = [np.load(shard_path(folder, 0))]
    stored = {row.image.path: rows[row.row] for row in read_index(folder, 2)}

    model = multigrain_jax.load_model(tmp_path / "weights")
    assert model.pooling_exponent == p
    for path, found in zip(paths, model.embed(paths), strict=True):
        np.testing.assert_allclose(found, stored[str(path)], rtol=0, atol=2e-6)
    exact = model.embed(paths, decode="exact")
    assert abs(exact[0] - stored[str(paths[0])]).max() > 1e-4
    assert model.similarity(*paths) == pytest.approx(
        float(exact[0] @ exact[1]), abs=1e-5
    )
    own = multigrain_jax.load_model(tmp_path / "weights", pooling_exponent=None)
    assert own.pooling_exponent == 3.0
