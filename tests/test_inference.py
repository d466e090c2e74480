import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import small_eval_config
from PIL import Image, ImageOps

import multigrain_jax
from configs import embed
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.orientation import TAG as EXIF_ORIENTATION
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.descriptors.folder import read_head, shard_path
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.errors import InputError
from multigrain_jax.inference import LoadedModel
from multigrain_jax.models.multigrain import create_model, merge_model, split_model
from multigrain_jax.opened_model import open_model
from multigrain_jax.tasks import embed as run_embed


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    _, variables = split_model(create_model("tiny", num_classes=4, seed=1))
    store = CheckpointStore(folder)
    meta = {"backbone": "tiny", "num_classes": 4, "class_names": ["a", "b", "c", "d"]}
    store.save(7, model=variables, meta=meta)
    store.close()
    return folder


def test_what_is_for_inference_alone_is_folded(tiny_checkpoint):
    opened = open_model(tiny_checkpoint)
    folded = opened.for_inference()
    assert opened.variables.batch_stats and not folded.variables.batch_stats
    arrays = ("graphdef", "variables")
    kept = set(opened._fields) - set(arrays)
    assert all(getattr(folded, name) is getattr(opened, name) for name in kept)
    model = LoadedModel(opened)
    assert not model.variables.batch_stats
    images = np.random.default_rng(0).standard_normal((2, 40, 40, 3), np.float32)
    want = merge_model(opened.graphdef, opened.variables)(jnp.asarray(images))
    for found, expected in zip(model(images), want, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_checkpoint_gives_features_in_one_call(workdir):
    model = multigrain_jax.load_model(workdir)
    assert (model.backbone, model.step, model.pooling_exponent) == ("tiny", 7, 3.0)
    photo = Image.fromarray(np.full((50, 70, 3), 90, np.uint8))
    output = model(model.preprocess(photo, 40)[None])
    assert output.embedding.shape == (1, 8) and output.logits.shape == (1, 4)
    step_folder = workdir / "checkpoints" / "7"
    again = multigrain_jax.load_model(step_folder)(model.preprocess(photo, 40)[None])
    np.testing.assert_array_equal(output.logits, again.logits)


def test_a_model_knows_its_size(workdir, tmp_path):
    _, variables = split_model(create_model("tiny", num_classes=4, seed=1))
    store = CheckpointStore(tmp_path / "trained")
    made_by = {"test_size": 40, "test_mode": "rect"}
    meta = {"backbone": "tiny", "num_classes": 4, "class_names": list("abcd")}
    store.save(7, model=variables, meta={**meta, "config": made_by})
    store.close()
    photo = Image.fromarray(np.full((50, 75, 3), 90, np.uint8))
    model = multigrain_jax.load_model(tmp_path / "trained")
    assert (model.test_size, model.test_mode) == (40, "rect")
    assert model.preprocess(photo).shape == (26, 40, 3)
    assert model.preprocess(photo, 60).shape == (40, 60, 3)
    assert model.preprocess(photo, mode="square").shape == (40, 40, 3)
    unknown = multigrain_jax.load_model(workdir)
    assert unknown.preprocess(photo).shape == (224, 224, 3)


def test_two_photos_are_as_similar_as_their_descriptors(workdir, tmp_path):
    model = multigrain_jax.load_model(workdir)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    rng = np.random.default_rng(5)
    for path, size in zip(paths, ((40, 60, 3), (20, 30, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(path)
    one, two = model.embed(paths, test_size=40)
    found = model.similarity(*paths, test_size=40)
    assert found == pytest.approx(float(one @ two), abs=1e-5)
    with Image.open(paths[1]) as photo:
        assert model.similarity(paths[0], photo, test_size=40) == found
    assert model.similarity(paths[0], paths[0], test_size=40) == pytest.approx(1)
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        model.similarity(paths[0], tmp_path / "gone.png", test_size=40)


def test_a_list_of_sizes_equals_one_by_one(workdir):
    model = multigrain_jax.load_model(workdir)
    rng = np.random.default_rng(0)
    sizes = ((33, 40), (50, 35))
    images = [rng.normal(size=(*hw, 3)).astype(np.float32) for hw in sizes]
    together = model(images)
    for row, image in enumerate(images):
        alone = model(image[None])
        np.testing.assert_array_equal(together.embedding[row], alone.embedding[0])


@pytest.mark.parametrize("exponent", [1.0, 2.0, np.inf, "inf", "2.5", np.float32(2)])
def test_another_exponent_changes_the_pooling_alone(workdir, exponent):
    default = multigrain_jax.load_model(workdir)
    other = multigrain_jax.load_model(workdir, pooling_exponent=exponent)
    images = np.random.default_rng(1).normal(size=(2, 40, 40, 3)).astype(np.float32)
    assert isinstance(other, LoadedModel)
    assert other.pooling_exponent == other.variables.pooling_exponent == float(exponent)
    assert not np.allclose(default(images).embedding, other(images).embedding)


def test_preprocessing_normalises_with_the_backbone_statistics():
    photo = Image.fromarray(np.full((64, 64, 3), 255, np.uint8))
    pixels = multigrain_jax.preprocess(photo, 32, "square")
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, 0], (1 - 0.485) / 0.229, rtol=0.2)
    assert multigrain_jax.preprocess(photo, 40, "rect").shape == (40, 40, 3)


# What turns an upright photo to how one of each orientation is stored.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
LOSSLESS = {"lossless": True, "exact": True}
# name -> mode, format, options of Image.save
KINDS = {
    "rgb": ("RGB", "PNG", {}),
    "jpeg": ("RGB", "JPEG", {"quality": 95}),
    "webp": ("RGB", "WEBP", LOSSLESS),
    "tiff": ("RGB", "TIFF", {}),
    "several photos": ("RGB", "MPO", {"save_all": True}),
    "no exif": ("RGB", "BMP", {}),
    "grey": ("L", "PNG", {}),
    "grey jpeg": ("L", "JPEG", {}),
    "grey and alpha": ("LA", "PNG", {}),
    "alpha": ("RGBA", "PNG", {}),
    "webp and alpha": ("RGBA", "WEBP", LOSSLESS),
    "palette": ("P", "PNG", {}),
    "transparent palette": ("P", "PNG", {"transparency": 3}),
    "gif": ("P", "GIF", {}),
    "one bit": ("1", "PNG", {}),
    # Compressed: Pillow 13 maps others into memory, and misreads those on their side.
    "cmyk": ("CMYK", "TIFF", {"compression": "tiff_lzw"}),
    "cmyk jpeg": ("CMYK", "JPEG", {}),
    "16 bits": ("I;16", "PNG", {}),
    "32 bits": ("I", "TIFF", {}),
    "float": ("F", "TIFF", {}),
}
WITHOUT_EXIF = {"BMP", "GIF"}
LOSSY = {"JPEG", "MPO"}


def photo_of_mode(mode):
    rng = np.random.default_rng(3)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(rng.integers(0, 60000, (37, 53)).astype(dtype))
    pixels = rng.integers(0, 256, (37, 53, 4), np.uint8)
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(pixels[..., i]) for i in (0, 3)])
    rgba = Image.fromarray(pixels)
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def save_photos(folder, kind):
    """The same photo with each orientation, and without one; orientation -> path."""
    mode, format_, options = KINDS[kind]
    upright = photo_of_mode(mode)
    paths = {}
    for orientation in (None, *range(1, 9)):
        stored = upright
        if orientation in STORED and format_ not in WITHOUT_EXIF:
            stored = upright.transpose(STORED[orientation])
        exif = Image.Exif()
        if orientation is not None:
            exif[EXIF_ORIENTATION] = orientation
        if format_ == "MPO":
            options = {**options, "append_images": [stored.convert("L").convert(mode)]}
        paths[orientation] = folder / f"{orientation}.{format_.lower()}"
        stored.save(paths[orientation], format_, exif=exif, **options)
    return paths


def seen_by_evaluation(paths, test_size, test_mode):
    """uint8 [H, W, 3] of each photo as the evaluation batches have it."""
    files = [ImageFile(str(path), 0) for path in paths]
    source = FileSource(files, class_names=["a"], decoding=VIEWER, local_cache_dir=None)
    reading = Reading(num_workers=0, prefetch=4, timeout_s=600.0)
    plan = plan_batches(
        source,
        test_size=test_size,
        test_mode=test_mode,
        batch_size=len(files),
        smallest_side=multigrain_jax.BACKBONES["tiny"].smallest_side,
        timeout_s=reading.timeout_s,
    )
    found = {}
    for batch in make_eval_batches(source, plan, reading=reading):
        assert not batch["bad"].any()
        for row in np.flatnonzero(batch["mask"]):
            size = (test_size, test_size)
            height, width = batch["size"][row] if test_mode == "rect" else size
            found[paths[batch["index"][row]]] = batch["image"][row, :height, :width]
    return found


@pytest.mark.parametrize("test_mode", ["square", "rect"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_is_preprocessed_as_evaluation_sees_it(tmp_path, kind, test_mode):
    paths = save_photos(tmp_path, kind)
    expected = seen_by_evaluation(list(paths.values()), 40, test_mode)
    row = multigrain_jax.BACKBONES["tiny"]
    found = {}
    for orientation, path in paths.items():
        with Image.open(path) as photo:
            found[orientation] = multigrain_jax.preprocess(
                photo, 40, test_mode, backbone="tiny"
            )
        scaled = expected[path].astype(np.float32) / np.float32(255)
        want = (scaled - np.float32(row.mean)) / np.float32(row.std)
        np.testing.assert_array_equal(found[orientation], want)
    if KINDS[kind][1] not in LOSSY:
        for pixels in found.values():
            np.testing.assert_array_equal(pixels, found[None])
    assert found[None].std() > 0.1


@pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff", "alpha", "16 bits"])
def test_what_the_user_has_turned_is_not_turned_again(tmp_path, kind):
    for path in save_photos(tmp_path, kind).values():
        with Image.open(path) as photo:
            expected = multigrain_jax.preprocess(photo, 40, "rect")
        with Image.open(path) as photo:
            turned = ImageOps.exif_transpose(photo)
        found = multigrain_jax.preprocess(turned, 40, "rect")
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_photo_stays_as_it_is(tmp_path, kind):
    with Image.open(save_photos(tmp_path, kind)[6]) as photo:
        photo.load()

        def state():
            exif = dict(photo.getexif())
            return photo.mode, photo.size, photo.tobytes(), photo.info.copy(), exif

        before = state()
        # Of a size at which nothing needs to be resized, too.
        for test_size in (40, max(photo.size)):
            multigrain_jax.preprocess(photo, test_size, "rect")
        assert state() == before


@pytest.mark.parametrize("test_mode", ["square", "rect"])
def test_a_photo_has_the_descriptor_that_embed_writes(workdir, tmp_path, test_mode):
    paths = []
    for kind in (
        "jpeg",
        "webp",
        "transparent palette",
        "alpha",
        "cmyk jpeg",
        "16 bits",
    ):
        folder = tmp_path / "photos" / kind
        folder.mkdir(parents=True)
        paths += save_photos(folder, kind).values()
    config = small_eval_config(
        embed.get_config,
        tmp_path / "photos",
        workdir,
        test_size=40,
        test_mode=test_mode,
        descriptor_dtype="float32",
    )
    results = run_embed.run(config, tmp_path / "w")
    assert (results["num_images"], results["num_unreadable"]) == (len(paths), 0)
    folder = tmp_path / "w" / "descriptors"
    model = multigrain_jax.load_model(workdir)
    for row in read_index(folder, read_head(folder).num_rows):
        with Image.open(row.image.path) as photo:
            pixels = model.preprocess(photo, 40, test_mode)
        expected = model(pixels[None]).normalized_embedding[0]
        stored = np.load(shard_path(folder, row.shard))[row.row]
        np.testing.assert_allclose(stored, expected, rtol=0, atol=2e-6)


def test_a_pytorch_file_is_told_how_to_become_a_checkpoint(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"found a file; .*multigrain convert"):
        multigrain_jax.load_model(tmp_path / "weights.pth")


def test_a_model_works_within_a_users_own_program(workdir):
    model = multigrain_jax.load_model(workdir)
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.normal(size=(2, 40, 40, 3)), jnp.float32)
    alone = model(images).embedding
    within = jax.jit(lambda x: model(x).embedding)(images)
    rounding = 1e-6 * np.abs(alone).max()
    np.testing.assert_allclose(within, alone, rtol=0, atol=rounding)
    # Images that are a constant of the program, as an array of either library.
    for constant in (images, np.asarray(images)):
        scaled = jax.jit(lambda s, x=constant: model(x).embedding * s)(jnp.float32(1))
        np.testing.assert_allclose(scaled, within, rtol=0, atol=rounding)
        assert jax.eval_shape(lambda x=constant: model(x)).embedding.shape == (2, 8)
    gradient = jax.grad(lambda x: model(x).logits.sum())(images)
    assert np.isfinite(gradient).all() and np.any(gradient != 0)
    each = jax.vmap(lambda x: model(x[None]).embedding[0])(images)
    np.testing.assert_allclose(each, alone, rtol=0, atol=rounding)
