"""The same photos as TFRecord files through tf.data, for measure/input.py."""

import importlib.util
import json
from collections.abc import Generator
from pathlib import Path

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.sources.tfrecord import INFO_FILE, TfrecordSource
from multigrain_jax.data.tfrecord_batches import make_tfrecord_batches

SHARDS = 8


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; it is not imported."""
    return importlib.util.find_spec("tensorflow") is not None


def write_tfrecords(source: ImageSource, folder: Path) -> TfrecordSource:
    """Write a source's images as TFDS would."""
    import tensorflow as tf

    def feature(image: bytes) -> dict[str, tf.train.Feature]:
        return {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
        }

    lengths = []
    for shard in range(SHARDS):
        numbers = range(shard, len(source), SHARDS)
        name = f"photos-train.tfrecord-{shard:05d}-of-{SHARDS:05d}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for number in numbers:
                features = tf.train.Features(feature=feature(source.read(number)))
                writer.write(tf.train.Example(features=features).SerializeToString())
        lengths.append(str(len(numbers)))
    splits = [{"name": "train", "shardLengths": lengths}]
    info = {"name": "photos", "fileFormat": "tfrecord", "splits": splits}
    (folder / INFO_FILE).write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("photo\n")
    return TfrecordSource(folder, "train")


def tfdata_batches(
    source: TfrecordSource,
    *,
    repeats: int,
    batch_size: int,
    train_size: int,
    crop_area_min: float,
    num_steps: int,
    prefetch: int,
) -> Generator[object]:
    """Batches on the device."""
    import jax

    from multigrain_jax.mesh import make_mesh, put_batch

    mesh = make_mesh()
    batches = make_tfrecord_batches(
        source,
        num_repeats=repeats,
        batch_size=batch_size,
        train_size=train_size,
        crop_area_min=crop_area_min,
        seed=0,
        first_step=0,
        num_steps=num_steps,
        batch_slice=slice(0, batch_size),
        prefetch=prefetch,
    )
    for batch in batches:
        arrays = {name: batch[name] for name in ("image", "label", "instance_id")}
        yield jax.block_until_ready(put_batch(mesh, arrays))
