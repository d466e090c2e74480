"""From a model and its images to descriptors that fit a folder."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.photos import write_plain_photos
from helpers.sources import open_photos

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.data.reading import Reading
from multigrain_jax.descriptors.describe import (
    embed_plan,
    plan_descriptors,
    settings_of_model,
    stamp_images,
)
from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.models.heads import (
    HEAD_KEY,
    DescriptorHead,
    Projection,
    head_to_json,
)
from multigrain_jax.opened_model import open_model
from multigrain_jax.trees import json_digest, leaf_digests


@pytest.fixture(scope="module")
def opened(tiny_checkpoint):
    return open_model(tiny_checkpoint)


@pytest.fixture
def source(tmp_path):
    """Nine photos in a folder, the last of them broken."""
    root = write_plain_photos(tmp_path / "photos", [f"{n}.png" for n in range(9)])
    (root / "8.png").write_bytes(b"")
    return open_photos(root)


def settings(opened, **changes):
    options = {"dtype": "float16", "test_size": 32, "test_mode": "square"} | changes
    return settings_of_model(opened, **options)


def test_settings_tell_models_apart_by_their_arrays(opened, tiny_checkpoint):
    found = settings(opened)
    assert (found.dim, found.backbone, found.whitened) == (8, "tiny", False)
    assert (found.dtype, found.test_size, found.test_mode) == ("float16", 32, "square")
    assert found.pooling_exponent == 3.0
    arrays = load_checkpoint(tiny_checkpoint).model
    assert found.model_digest == json_digest(leaf_digests(arrays))


WHITENING = Projection(4, constant_channel=True, normalize="plus_epsilon")
HEADS = (
    DescriptorHead("a", (WHITENING,)),
    DescriptorHead("b", (WHITENING,)),
    DescriptorHead("a", (WHITENING._replace(normalize=None),)),
    DescriptorHead("a", (WHITENING._replace(normalize="at_least_epsilon"),)),
    DescriptorHead("a", (WHITENING,), normalize="at_least_epsilon"),
    DescriptorHead("a", (WHITENING._replace(num_components=None),)),
    DescriptorHead("a", (WHITENING._replace(constant_channel=False),)),
    DescriptorHead("a", (WHITENING._replace(offset="bias"),)),
)


def test_heads_of_equal_arrays_and_other_rows_are_told_apart(opened):
    """Of models with another network's head, and of no others."""

    def digest(meta):
        checkpoint = dataclasses.replace(opened.checkpoint, meta=meta)
        return settings(opened._replace(checkpoint=checkpoint)).model_digest

    meta = opened.checkpoint.meta
    plain = digest(meta)
    assert digest({**meta, "class_names": ["other"]}) == plain
    found = {digest({**meta, HEAD_KEY: head_to_json(head)}) for head in HEADS}
    assert len(found | {plain}) == len(HEADS) + 1
    # As it is after it was saved and read.
    head = json.loads(json.dumps(head_to_json(HEADS[0])))
    again = digest({**meta, HEAD_KEY: head})
    assert again == digest({**meta, HEAD_KEY: head_to_json(HEADS[0])})


def test_the_plan_is_of_the_settings_size_and_the_chosen_images(opened, source):
    plan = plan_descriptors(
        source,
        settings(opened, test_size=40),
        batch_size=8,
        timeout_s=60.0,
        indices=np.array([7, 2, 5]),
    )
    assert plan.rows[plan.rows >= 0].tolist() == [7, 2, 5]
    np.testing.assert_array_equal(plan.shapes, [[40, 40]])
    whole = plan_descriptors(source, settings(opened), batch_size=8, timeout_s=60.0)
    assert np.sum(whole.rows >= 0) == 9


def test_every_image_of_a_plan_gets_a_descriptor_of_unit_length(
    opened, source, tmp_path
):
    plan = plan_descriptors(source, settings(opened), batch_size=8, timeout_s=60.0)
    reading = Reading(num_workers=0, prefetch=2, timeout_s=60.0)
    batches = list(embed_plan(opened, source, plan, reading=reading, workdir=tmp_path))
    indices = np.concatenate([batch.indices for batch in batches])
    np.testing.assert_array_equal(indices, np.arange(9))
    bad = np.concatenate([batch.bad for batch in batches])
    np.testing.assert_array_equal(np.flatnonzero(bad), [8])
    descriptors = np.concatenate([batch.descriptors for batch in batches])[~bad]
    assert descriptors.shape == (8, 8)
    lengths = np.linalg.norm(descriptors, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=0, atol=1e-5)
    assert "8.png" in (tmp_path / "skipped.txt").read_text()


def test_a_stamp_is_the_files_path_size_and_time(source, tmp_path):
    path = tmp_path / "photos" / "3.png"
    expected = ImageStamp(str(path), path.stat().st_size, path.stat().st_mtime_ns)
    assert stamp_images(source)[3] == expected
    path.unlink()
    # What is no file of its own has no time, and neither has one that is gone.
    assert stamp_images(source)[3] == ImageStamp(str(path), 0, 0)
