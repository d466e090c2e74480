"""Colour operations against Pillow's recorded results, to the bit, compiled."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from multigrain_jax.ops import color

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPERATIONS = {
    "brightness": color.brightness,
    "contrast": color.contrast,
    "saturation": color.saturation,
}
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.fixture(scope="module")
def goldens(golden_dir):
    return dict(np.load(golden_dir / "transforms" / "color.npz"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_single_operations_are_bit_equal(goldens, name):
    keys = [key for key in goldens if key.startswith(f"jitter/{name}/")]
    factors = jnp.asarray([float(key.split("/")[-1]) for key in keys], jnp.float32)
    image = goldens["small/uint8"].astype(np.float32)
    images = jnp.asarray(np.stack([image] * len(keys)))
    found = jax.jit(OPERATIONS[name])(images, factors)
    np.testing.assert_array_equal(found, np.stack([goldens[key] for key in keys]))


def test_chains_are_bit_equal_each_image_in_its_own_order(goldens):
    keys = [key for key in goldens if key.startswith("jitter_chain/")]
    assert len(keys) == 3
    order = jnp.asarray([["bcs".index(c) for c in key.split("/")[1]] for key in keys])
    factors = jnp.asarray([[1.2, 0.8, 1.3]] * len(keys), jnp.float32)
    image = goldens["small/uint8"].astype(np.float32)
    found = jax.jit(color.jitter_colors)(
        jnp.asarray(np.stack([image] * len(keys))), factors, order
    )
    np.testing.assert_array_equal(found, np.stack([goldens[key] for key in keys]))


def test_random_factors_and_orders_equal_pillow():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 31, 33, 3), dtype=np.uint8)
    factors = rng.uniform(0.7, 1.3, (24, 3)).astype(np.float32)
    order = np.asarray(list(permutations(range(3))) * 4)
    expected = []
    for pixels, image_factors, operations in zip(images, factors, order, strict=True):
        image = Image.fromarray(pixels)
        for operation in operations:
            factor = float(image_factors[operation])
            image = ENHANCERS[operation](image).enhance(factor)
        expected.append(np.asarray(image))
    found = jax.jit(color.jitter_colors)(
        jnp.asarray(images, jnp.float32), jnp.asarray(factors), jnp.asarray(order)
    )
    np.testing.assert_array_equal(found, np.stack(expected))


@pytest.mark.parametrize("half", [False, True])
def test_mean_grey_is_rounded_half_up_in_a_large_image(half):
    # 4 megapixels: a float32 sum, or a doubled int32 one, would be wrong here.
    size = 2100
    pixels = np.full((1, size, size, 3), 251, np.float32)
    lower = size * size // 2 + (0 if half else 1)
    pixels.reshape(-1, 3)[:lower] = 250
    found = jax.jit(color.contrast)(jnp.asarray(pixels), jnp.zeros(1))
    expected = 251 if half else 250
    assert (float(found.min()), float(found.max())) == (expected, expected)


@pytest.mark.parametrize("k", range(3))
def test_lighting_clamp_and_normalisation(goldens, k):
    golden = {
        name: goldens[f"lighting/{k}/{name}"]
        for name in ("alpha", "chw", "bound_chw", "bound_normalized_chw")
    }
    image = jnp.asarray(goldens["small/uint8"][None].astype(np.float32)) / 255
    lit = color.lighting(image, jnp.asarray(golden["alpha"])[None])
    bound = jnp.clip(lit, 0.0, 1.0)
    results = {
        "chw": lit,
        "bound_chw": bound,
        "bound_normalized_chw": color.normalize(bound, MEAN, STD),
    }
    for name, found in results.items():
        expected = golden[name].transpose(1, 2, 0)
        np.testing.assert_allclose(found[0], expected, rtol=2e-6, atol=2e-6)


def test_flip_mirrors_the_chosen_images():
    images = jnp.arange(2 * 2 * 3 * 3, dtype=jnp.uint8).reshape(2, 2, 3, 3)
    found = color.horizontal_flip(images, jnp.asarray([False, True]))
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[1], images[1, :, ::-1])


def run_augment(name, images, seed=0):
    return jax.jit(
        lambda key, x: color.augment(key, x, augmentation=name, mean=MEAN, std=STD)
    )(jax.random.key(seed), images)


@pytest.fixture(scope="module")
def crops():
    return jnp.asarray(
        np.random.default_rng(3).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    )


def test_host_policy_is_only_normalised_on_the_device(crops):
    expected = (np.asarray(crops, np.float32) / 255 - MEAN) / STD
    np.testing.assert_allclose(run_augment("AA", crops), expected, rtol=1e-5, atol=1e-6)


def test_pixels_are_normalised_alike_on_host_and_device():
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    on_host = color.normalize_pixels_on_host(pixels, MEAN, STD)
    assert on_host.dtype == np.float32
    for value in (0, 1, 100, 255):
        for channel in range(3):
            scaled = np.float32(value) / np.float32(255) - np.float32(MEAN[channel])
            assert on_host[value, channel] == scaled / np.float32(STD[channel])
    for images in (pixels, pixels.astype(np.float32)):
        on_device = jax.jit(lambda x: color.normalize_pixels(x, MEAN, STD))(images)
        assert on_device.dtype == jnp.float32
        np.testing.assert_allclose(on_device, on_host, rtol=1e-5, atol=1e-6)


def test_plain_augmentation_flips_about_half(crops):
    expected = np.asarray(run_augment("AA", crops))
    found = np.asarray(run_augment("torch", crops))
    kept = np.array(
        [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
    )
    mirrored = np.array(
        [np.array_equal(a, b[:, ::-1]) for a, b in zip(found, expected, strict=True)]
    )
    np.testing.assert_array_equal(kept, ~mirrored)
    assert 16 <= mirrored.sum() <= 48


@pytest.mark.parametrize(("name", "jitter"), [("full", 0.3), ("senet", 0.2)])
def test_color_augmentation_draws_within_its_bounds(name, jitter):
    # A uniform grey image: contrast and saturation leave it as it is, so the division
    # of lighting's 1.1 apart, what remains is brightness and a shift per channel.
    images = jnp.full((512, 4, 4, 3), 128, jnp.uint8)
    found = np.asarray(run_augment(name, images)) * STD + MEAN
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    level = np.median(found.mean(axis=(1, 2)) * 1.1 * 255, axis=1)
    assert 128 * (1 - jitter) - 6 < level.min() < 128 * (1 - jitter) + 8
    assert 128 * (1 + jitter) - 8 < level.max() < 128 * (1 + jitter) + 6
    shift = (found.mean(axis=(1, 2)) * 1.1).std(axis=1)
    assert shift.max() > 1e-3


def test_same_key_same_images_other_key_others(crops):
    first, again, other = (run_augment("full", crops, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_do_not_depend_on_the_devices(crops):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    np.testing.assert_array_equal(
        run_augment("full", crops), run_augment("full", jax.device_put(crops, split))
    )


def test_unknown_augmentation_is_refused(crops):
    with pytest.raises(ValueError, match=r"'ful'.*torch, full, senet, AA"):
        color.augment(jax.random.key(0), crops, augmentation="ful", mean=MEAN, std=STD)
