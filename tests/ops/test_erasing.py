from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.mesh import make_mesh, put_batch
from multigrain_jax.ops.erasing import inside, random_erasing

BATCH, HEIGHT, WIDTH = 400, 40, 30


@pytest.fixture(scope="module")
def erase():
    return jax.jit(random_erasing)


def erased_parts(erase, probability, *, seed=0):
    """Bool [B, H, W]: what was erased of images without zeros."""
    images = np.random.default_rng(seed).uniform(1, 2, (BATCH, HEIGHT, WIDTH, 3))
    images = images.astype(np.float32)
    got = np.asarray(erase(jax.random.key(seed), images, probability=probability))
    erased = np.all(got == 0, axis=-1)
    np.testing.assert_array_equal(got[~erased], images[~erased])
    return erased


def test_without_probability_nothing_is_erased_and_with_1_all_are(erase):
    assert not erased_parts(erase, 0.0).any()
    assert erased_parts(erase, 1.0).any(axis=(1, 2)).all()
    share = erased_parts(erase, 0.25).any(axis=(1, 2)).mean()
    assert 0.16 < share < 0.34  # four standard deviations


def test_what_is_erased_is_a_rectangle_of_the_papers_shapes(erase):
    erased = erased_parts(erase, 1.0)
    rows, columns = erased.any(axis=2), erased.any(axis=1)
    np.testing.assert_array_equal(erased, rows[:, :, None] & columns[:, None, :])
    heights, widths = rows.sum(axis=1), columns.sum(axis=1)
    # An unbroken run of rows and columns.
    for runs in (rows, columns):
        assert ((np.diff(runs.astype(int), axis=1) == 1).sum(axis=1) <= 1).all()
    # Sides are rounded to whole pixels.
    area = HEIGHT * WIDTH
    assert ((heights + 0.5) * (widths + 0.5) >= 0.02 * area).all()
    assert ((heights - 0.5) * (widths - 0.5) <= area / 3).all()
    assert ((heights + 0.5) / (widths - 0.5) >= 0.3).all()
    assert ((heights - 0.5) / (widths + 0.5) <= 1 / 0.3).all()
    shares = heights * widths / area
    assert abs(shares.mean() - (0.02 + 1 / 3) / 2) < 0.02
    assert abs(np.log(heights / widths).mean()) < 0.15
    # Borders are reached, and never all of the image.
    for runs in (rows, columns):
        assert 5 < runs[:, 0].sum() < BATCH / 3
        assert 5 < runs[:, -1].sum() < BATCH / 3
    assert heights.max() < HEIGHT
    assert widths.max() < WIDTH


def test_an_image_of_a_sample_keeps_its_draws_on_any_number_of_devices():
    images = np.ones((16, 33, 33, 3), np.float32)
    results = []
    for count in (1, 8):
        placed = put_batch(make_mesh(count), {"image": images})["image"]
        erase = jax.jit(partial(random_erasing, probability=0.5))
        results.append(np.asarray(erase(jax.random.key(1), placed)))
    np.testing.assert_array_equal(results[1], results[0])
    assert 0 < (results[0] == 0).mean() < 0.5


def test_narrow_and_wide_images_keep_their_dtype(erase):
    for dtype, shape in ((jnp.float32, (64, 4, 90, 3)), (jnp.bfloat16, (8, 1, 1, 3))):
        images = jnp.ones(shape, dtype)
        got = erase(jax.random.key(0), images, probability=1.0)
        assert (got.dtype, got.shape) == (dtype, shape)
    # Of one pixel nothing that is less than all of it can be erased.
    np.testing.assert_array_equal(got, images)


def test_rectangles_are_where_they_are_said_to_be():
    got = inside(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]), (4, 5))
    want = np.zeros((1, 4, 5), bool)
    want[0, 1:3, 2:4] = True
    np.testing.assert_array_equal(got, want)
