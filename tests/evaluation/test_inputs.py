"""From a set of images to what the network takes of it."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.photos import plain_photo

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.eval_batches import plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.evaluation.inputs import (
    features_of_uint8,
    network_inputs,
    recorded_batches,
)
from multigrain_jax.models.backbones import BACKBONES


def test_what_stays_on_the_host_does_not_go_to_the_devices():
    batch = dict.fromkeys(("image", "label", "index", "mask", "bad"), 1)
    assert list(network_inputs(batch)) == ["image", "label", "mask", "bad"]
    assert "size" in network_inputs({**batch, "size": 1})


class Trunk:
    """In place of a model: gives back what it is given."""

    def features(self, images, sizes):
        return images, sizes


@pytest.mark.parametrize("sizes", [None, np.array([[2, 2]], np.int32)])
def test_pixels_are_normalised_by_the_backbones_statistics(sizes):
    backbone = BACKBONES["resnet18"]
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3) * 20
    batch = {"image": jnp.asarray(image)} | ({} if sizes is None else {"size": sizes})
    found, found_sizes = features_of_uint8(Trunk(), batch, backbone=backbone)
    want = (image / 255 - np.array(backbone.mean)) / np.array(backbone.std)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert found.dtype == jnp.float32
    assert found_sizes is sizes


@pytest.fixture
def source(tmp_path):
    """Five photos, of which the second and the fifth are broken."""
    files = []
    for number in range(5):
        path = tmp_path / f"photos/{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if number in (1, 4) else plain_photo(number))
        files.append(ImageFile(str(path), 0))
    return FileSource(files, class_names=["a"], decoding=VIEWER, local_cache_dir=None)


def batches_of(source, workdir):
    plan = plan_batches(
        source,
        test_size=8,
        test_mode="square",
        batch_size=2,
        smallest_side=1,
        timeout_s=60.0,
    )
    reading = Reading(num_workers=0, prefetch=2, timeout_s=60.0)
    return recorded_batches(source, plan, workdir=workdir, reading=reading)


def test_broken_photos_are_marked_and_listed(source, tmp_path):
    batches = list(batches_of(source, tmp_path))
    bad = np.concatenate([batch["bad"] for batch in batches])
    np.testing.assert_array_equal(np.flatnonzero(bad), [1, 4])
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0].split("/")[-1] for line in lines] == ["1.jpg", "4.jpg"]


def test_no_more_is_listed_than_was_looked_at(source, tmp_path):
    batches = batches_of(source, tmp_path)
    assert len(list(itertools.islice(batches, 1))) == 1
    batches.close()
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 1


def test_a_dry_run_lists_nothing(source, tmp_path):
    assert len(list(batches_of(source, None))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
