"""TFRecord data sets: the source without TensorFlow, the batches with it."""

import io
import json
import struct

import numpy as np
import pytest
from helpers.configs import small_train_config
from PIL import Image

from configs import base
from multigrain_jax.data import cache
from multigrain_jax.data.sources.open import open_source
from multigrain_jax.data.sources.tfrecord import TfrecordSource, parse_example
from multigrain_jax.data.tfrecord_batches import make_tfrecord_batches
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.train import run
from multigrain_jax.tasks.train_check import check_train_config

LENGTHS = (5, 0, 4, 2)
COUNT, REPEATS, BATCH_SIZE = sum(LENGTHS), 3, 8
NO_TENSORFLOW = "TensorFlow is not installed: pip install -e '.[tf]'"
CLASSES = ["ant", "bee", "cow"]


def masked_checksum(data):
    """CRC-32C, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value):
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(image, label):
    """A serialized tf.train.Example, its fields out of order."""
    features = {
        "label": field(3, field(1, varint(label))),
        "weight": field(2, field(1, struct.pack("<f", 0.5))),
        "image": field(1, field(1, image)),
        "nothing": field(1, b""),
    }
    entries = [field(1, name.encode()) + field(2, f) for name, f in features.items()]
    return field(1, b"".join(field(1, entry) for entry in entries))


def picture(number):
    """A JPEG of one colour, which tells its number."""
    size = (60 + 7 * number, 50 + 3 * number)
    image = Image.new("RGB", size, (20 * number, 255 - 20 * number, 128))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A prepared data set of eleven pictures in four files, one of them empty."""
    number = 0
    for shard, length in enumerate(LENGTHS):
        with open(tmp_path / f"in-train.tfrecord-{shard:05d}-of-00004", "wb") as file:
            for _ in range(length):
                data = example(picture(number), number % 3)
                head = struct.pack("<Q", len(data))
                file.write(head + masked_checksum(head) + data + masked_checksum(data))
                number += 1
    info = {"name": "in", "fileFormat": "tfrecord", "splits": []}
    info["splits"].append({"name": "train", "shardLengths": [str(n) for n in LENGTHS]})
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    return tmp_path


def make_batches(folder, **changes):
    pytest.importorskip("tensorflow", reason=NO_TENSORFLOW)
    options = {
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
    source = TfrecordSource(folder, "train")
    return list(make_tfrecord_batches(source, **(options | changes)))


def column(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def assert_equal_batches(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_the_source_needs_no_tensorflow(folder):
    source = open_source(
        source="tfds",
        root=folder,
        split="train",
        list_file=None,
        val_fraction=0.0,
        num_images=None,
        local_cache_dir=None,
    )
    assert isinstance(source, TfrecordSource)
    assert len(source) == COUNT and source.class_names == CLASSES
    np.testing.assert_array_equal(source.labels, np.arange(COUNT) % 3)
    assert [source.read(n) for n in range(COUNT)] == [picture(n) for n in range(COUNT)]
    assert source.describe(5).endswith("in-train.tfrecord-00002-of-00004 record 0")


def test_an_example_is_parsed_in_both_encodings_of_integers():
    packed = field(3, field(1, varint(300) + varint(7)))
    single = field(3, varint(1 << 3) + varint(300))
    for label in (packed, single):
        entry = field(1, b"label") + field(2, label)
        assert parse_example(field(1, field(1, entry))) == {"label": 300}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "dataset_info.json").unlink(), "prepared by TFDS was expected"),
        (lambda f: (f / "label.labels.txt").unlink(), "expected to list the classes"),
        (
            lambda f: (f / "in-train.tfrecord-00002-of-00004").unlink(),
            "copy the whole data set",
        ),
        (
            lambda f: (f / "in-train.tfrecord-00000-of-00004").write_bytes(b""),
            "5 records were expected, found 0",
        ),
    ],
)
def test_what_is_missing_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        TfrecordSource(folder, "train").read(0)


def test_another_split_or_feature_is_refused(folder):
    with pytest.raises(InputError, match=r"split 'val' was expected, found train"):
        TfrecordSource(folder, "val")
    with pytest.raises(InputError, match=r"\['photo'\] were expected"):
        TfrecordSource(folder, "train", image_key="photo").read(0)


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


def test_the_labels_of_a_large_set_are_read_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "KEPT_FROM", COUNT)
    first = TfrecordSource(folder, "train").labels
    monkeypatch.setattr(TfrecordSource, "_read_labels", None)
    np.testing.assert_array_equal(TfrecordSource(folder, "train").labels, first)


def test_the_config_is_checked(folder):
    config = base.get_config()
    config.data.update({"source": "folder", "root": "x", "backend": "tfdata"})
    config.augmentation = "AA"
    with pytest.raises(InputError, match=r"(?s)data.source = 'folder'.*\"AA\""):
        check_train_config(config.to_dict(), num_devices=1)
    config.data.backend = "tf"
    with pytest.raises(InputError, match="'tf', expected one of grain, tfdata"):
        check_train_config(config.to_dict(), num_devices=1)


@pytest.mark.slow
def test_a_run_trains_on_tfrecord_files(folder, tmp_path):
    pytest.importorskip("tensorflow", reason=NO_TENSORFLOW)
    source = {"source": "tfds", "val_split": "train", "backend": "tfdata"}
    config = small_train_config(folder, batch_size=8, num_epochs=1, data=source)
    results = run(config, tmp_path / "work")
    assert results["val/top1"] >= 0
