"""Training batches through TensorFlow; without it the tests are skipped."""

import json
import sys

import numpy as np
import pytest
from helpers.configs import small_train_config
from helpers.tfrecord import COUNT, write_tfrecords

from multigrain_jax.data.sources.tfrecord import TfrecordSource
from multigrain_jax.data.tfrecord_batches import make_tfrecord_batches
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.train import run

REPEATS, BATCH_SIZE = 3, 8
NO_TENSORFLOW = "TensorFlow is not installed: pip install -e '.[tf]'"


@pytest.fixture
def folder(tmp_path):
    return write_tfrecords(tmp_path)


OPTIONS = {
    "num_repeats": REPEATS,
    "batch_size": BATCH_SIZE,
    "train_size": 16,
    "crop_area_min": 0.08,
    "seed": 3,
    "first_step": 0,
    "num_steps": 10,
    "batch_slice": slice(0, BATCH_SIZE),
    "prefetch": 2,
}


def make_batches(folder, **changes):
    pytest.importorskip("tensorflow", reason=NO_TENSORFLOW)
    source = TfrecordSource(folder, "train")
    return list(make_tfrecord_batches(source, **(OPTIONS | changes)))


def column(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def assert_equal_batches(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.slow
def test_batches_hold_whole_groups_of_every_image(folder):
    batches = make_batches(folder, num_steps=9)  # two passes of 33 samples, and 6
    for batch in batches:
        assert batch["image"].shape == (BATCH_SIZE, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["instance_id"].dtype == np.int32
        assert batch["bad_index"].shape == (0,)
    ids, labels = column(batches, "instance_id"), column(batches, "label")
    np.testing.assert_array_equal(labels, ids % 3)
    groups = ids.reshape(-1, REPEATS)
    assert (groups == groups[:, :1]).all()
    passes = groups[: 2 * COUNT, 0].reshape(2, COUNT)
    assert [sorted(one) for one in passes.tolist()] == [list(range(COUNT))] * 2
    assert passes[0].tolist() != passes[1].tolist() != list(range(COUNT))
    # The crops are those of the picture that the number names.
    colours = column(batches, "image").mean(axis=(1, 2))
    np.testing.assert_allclose(colours[:, 0], 20.0 * ids, atol=3)


@pytest.mark.slow
def test_a_seed_decides_and_a_position_resumes(folder):
    whole = make_batches(folder)
    assert_equal_batches(make_batches(folder), whole)
    for first in (1, 4, 7):
        rest = make_batches(folder, first_step=first, num_steps=10 - first)
        assert_equal_batches(rest, whole[first:])
    other = column(make_batches(folder, seed=4), "instance_id")
    assert (other != column(whole, "instance_id")).any()


@pytest.mark.slow
def test_hosts_share_the_files(folder):
    (folder / "in-train.tfrecord-00001-of-00004").unlink()
    shards = ((0, 5), (2, 4))
    for path, (old, _) in zip(("00000", "00001"), shards, strict=True):
        name = folder / f"in-train.tfrecord-{old:05d}-of-00004"
        name.rename(folder / f"in-train.tfrecord-{path}-of-00002")
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["5", "4"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    parts = [
        make_batches(folder, batch_slice=cut) for cut in (slice(0, 4), slice(4, 8))
    ]
    first, second = (set(column(part, "instance_id").tolist()) for part in parts)
    assert first == set(range(5)) and second == set(range(5, 9))
    with pytest.raises(InputError, match="2 TFRecord files for 4 hosts"):
        make_batches(folder, batch_slice=slice(0, 2))


@pytest.mark.slow
def test_crops_are_spread_like_those_of_pillow(folder):
    batches = make_batches(folder, num_steps=4, crop_area_min=1.0, num_repeats=1)
    # The whole area, where the ratio allows it: of one colour all the same.
    assert max(np.ptp(batch["image"], axis=(1, 2)).max() for batch in batches) <= 4
    images = column(make_batches(folder, num_steps=2), "image")
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 5


@pytest.mark.slow
def test_a_damaged_file_ends_in_one_line(folder):
    path = folder / "in-train.tfrecord-00000-of-00004"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        make_batches(folder)


@pytest.mark.slow
def test_a_run_trains_on_tfrecord_files(folder, tmp_path):
    pytest.importorskip("tensorflow", reason=NO_TENSORFLOW)
    source = {"source": "tfds", "val_split": "train", "backend": "tfdata"}
    config = small_train_config(folder, batch_size=8, num_epochs=1, data=source)
    results = run(config, tmp_path / "work")
    assert results["val/top1"] >= 0


def test_without_tensorflow_the_remedy_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    source = TfrecordSource(folder, "train")
    batches = make_tfrecord_batches(source, **OPTIONS)
    with pytest.raises(InputError, match=r"pip install -e '\.\[tf\]'"):
        next(batches)
