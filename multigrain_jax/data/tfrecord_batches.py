"""Training batches from TFRecord files through tf.data; TensorFlow only here.

For data that already lies in TFRecord on a local disk (data.backend = "tfdata"). The
batches have the form of `make_train_batches`, with these differences:

- The order is not a permutation of the whole set: each pass shuffles the files and then
  the images within a buffer. Passes follow each other without regard to epochs.
- Each host reads files of its own, so the order depends on how many hosts there are.
- Crops are resized by TensorFlow (bilinear, antialiased): they differ from Pillow's by
  rounding. An image that cannot be decoded ends the run; none is replaced.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from multigrain_jax.data.crops import CROP_ATTEMPTS, RATIO_RANGE
from multigrain_jax.data.reading import HostBatch
from multigrain_jax.data.sources.tfrecord import Shard, TfrecordSource
from multigrain_jax.errors import InputError
from multigrain_jax.remedies import install

# Images that are shuffled among each other; 110 kB each for ImageNet.
SHUFFLE_BUFFER = 8192
# Files that are read in turns, and how many images in each.
OPEN_FILES, TURN = 16, 16


@dataclass(frozen=True)
class _Reader:
    """The stream of one host as a tf.data graph."""

    tf: Any
    shards: tuple[Shard, ...]
    image_key: str
    label_key: str
    num_repeats: int
    batch_size: int
    start: int
    stop: int
    train_size: int
    crop_area_min: float
    seed: int

    def batches(self, first_step: int, num_steps: int, prefetch: int) -> Any:
        """A data set of (images, labels, instance ids), from `first_step` on."""
        tf, share = self.tf, self.stop - self.start
        image, skipped = divmod(first_step * share, self.num_repeats)
        first_pass, within = divmod(image, sum(shard.length for shard in self.shards))
        records = tf.data.Dataset.range(first_pass, 2**62).flat_map(self._one_pass)
        samples = (
            records.skip(within)
            .enumerate(image)
            .map(self._crops, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .unbatch()
            .skip(skipped)
        )
        return samples.batch(share).take(num_steps).prefetch(prefetch)

    def _one_pass(self, number: Any) -> Any:
        """All records of this host's files once, with their images' numbers."""
        tf = self.tf
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self.shards)), seed=tf.stack([self.seed, number])
        )
        paths = tf.gather([shard.path for shard in self.shards], order)
        firsts = tf.gather(
            tf.constant([shard.first for shard in self.shards], tf.int64), order
        )
        records = tf.data.Dataset.from_tensor_slices((paths, firsts)).interleave(
            lambda path, first: tf.data.TFRecordDataset(path).enumerate(first),
            cycle_length=min(OPEN_FILES, len(self.shards)),
            block_length=TURN,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return records.shuffle(
            SHUFFLE_BUFFER,
            seed=self.seed * 1_000_003 + number,
            reshuffle_each_iteration=False,
        )

    def _crops(self, place: Any, numbered: Any) -> tuple[Any, Any, Any]:
        """The R crops of the image at `place` of this host's stream."""
        tf = self.tf
        number, record = numbered
        features = tf.io.parse_single_example(
            record,
            {
                self.image_key: tf.io.FixedLenFeature([], tf.string),
                self.label_key: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        image = tf.io.decode_image(
            features[self.image_key], channels=3, expand_animations=False
        )
        crops = [
            self._crop(image, place * self.num_repeats + repeat)
            for repeat in range(self.num_repeats)
        ]
        label = tf.cast(features[self.label_key], tf.int32)
        number = tf.cast(number, tf.int32)
        return (
            tf.stack(crops),
            tf.fill([self.num_repeats], label),
            tf.fill([self.num_repeats], number),
        )

    def _crop(self, image: Any, sample: Any) -> Any:
        """The crop of this host's sample, drawn from (seed, global position)."""
        tf, share = self.tf, self.stop - self.start
        position = sample // share * self.batch_size + self.start + sample % share
        draws = tf.random.stateless_uniform(
            [CROP_ATTEMPTS, 4], seed=tf.stack([tf.cast(self.seed, tf.int64), position])
        )
        height, width = tf.unstack(tf.shape(image)[:2])
        left, top, crop_width, crop_height = self._box(draws, width, height)
        cut = tf.image.crop_to_bounding_box(image, top, left, crop_height, crop_width)
        size = self.train_size
        resized = tf.image.resize(cut, [size, size], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    def _box(self, draws: Any, width: Any, height: Any) -> tuple[Any, Any, Any, Any]:
        """`random_crop_box` of `crops.py`: the first of ten draws that fits."""
        tf = self.tf
        wide, high = tf.cast(width, tf.float32), tf.cast(height, tf.float32)
        low, ratio_high = np.log(RATIO_RANGE).astype(np.float32)
        area = (
            wide * high * (self.crop_area_min + (1 - self.crop_area_min) * draws[:, 0])
        )
        ratio = tf.exp(low + (ratio_high - low) * draws[:, 1])
        widths, heights = (
            tf.round(tf.sqrt(area * ratio)),
            tf.round(tf.sqrt(area / ratio)),
        )
        fits = (widths > 0) & (heights > 0) & (widths <= wide) & (heights <= high)
        # The central part where none fits, as an eleventh draw that does.
        central_width = tf.minimum(wide, tf.round(high * RATIO_RANGE[1]))
        central_height = tf.minimum(high, tf.round(wide / RATIO_RANGE[0]))
        widths = tf.concat([widths, [central_width]], 0)
        heights = tf.concat([heights, [central_height]], 0)
        lefts = tf.concat(
            [(wide - widths[:-1] + 1) * draws[:, 2], [(wide - central_width) / 2]], 0
        )
        tops = tf.concat(
            [(high - heights[:-1] + 1) * draws[:, 3], [(high - central_height) / 2]], 0
        )
        chosen = tf.argmax(tf.concat([fits, [True]], 0))
        left, top, crop_width, crop_height = (
            tf.cast(part[chosen], tf.int32) for part in (lefts, tops, widths, heights)
        )
        return left, top, crop_width, crop_height


def make_tfrecord_batches(
    source: TfrecordSource,
    *,
    num_repeats: int,
    batch_size: int,
    train_size: int,
    crop_area_min: float,
    seed: int,
    first_step: int,
    num_steps: int,
    batch_slice: slice,
    prefetch: int,
) -> Generator[HostBatch]:
    """Training batches `first_step` to `first_step + num_steps` from TFRecord files.

    Every image stands R times in a row and is decoded once. The numbers depend on
    (seed, position) and on the number of hosts; resuming reads, but does not decode,
    what comes before in the same pass over the files.

    Args:
        source: the data set.
        num_repeats: R, augmentations of each image in a row.
        batch_size: samples of a batch, over all hosts.
        train_size: side of the crops, in pixels.
        crop_area_min: smallest share of an image that a crop takes.
        seed: of the order and the crops.
        first_step: where to begin.
        num_steps: how many batches.
        batch_slice: this host's contiguous share of every batch; all hosts' shares are
            of one length.
        prefetch: batches that are made ahead.

    Yields:
        `image` uint8 [b, S, S, 3], `label` int32 [b], `instance_id` and `image_index`
        int32 [b], which are one, and `bad_index` and `noted_index` int32 [0].

    Raises:
        InputError: no TensorFlow, fewer files than hosts, or a damaged record.
    """
    start, stop, _ = batch_slice.indices(batch_size)
    hosts, host = batch_size // (stop - start), start // (stop - start)
    if len(source.shards) < hosts:
        raise InputError(
            f"{len(source.shards)} TFRecord files for {hosts} hosts: expected one each "
            "at least; prepare the data set in more shards"
        )
    tf = _import_tensorflow()
    reader = _Reader(
        tf=tf,
        shards=tuple(source.shards[host::hosts]),
        image_key=source.image_key,
        label_key=source.label_key,
        num_repeats=num_repeats,
        batch_size=batch_size,
        start=start,
        stop=stop,
        train_size=train_size,
        crop_area_min=crop_area_min,
        seed=seed,
    )
    try:
        batches = reader.batches(first_step, num_steps, prefetch).as_numpy_iterator()
        for images, labels, instances in batches:
            yield {
                "image": images,
                "label": labels,
                "instance_id": instances,
                "image_index": instances,
                "bad_index": np.empty(0, np.int32),
                "noted_index": np.empty(0, np.int32),
            }
    except tf.errors.OpError as error:
        raise InputError(
            f"a TFRecord file beside {source.shards[0].path} cannot be read, or an "
            f"image in it cannot be decoded: {error}; copy the files again, or set "
            'data.backend to "grain", which lists such images and goes on'
        ) from error


def _import_tensorflow() -> Any:
    # Its start-up lines are of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            'data.backend = "tfdata" needs TensorFlow, which is missing '
            f"({error}): {install('tf')}"
        ) from error
    # The accelerator is JAX's.
    tf.config.set_visible_devices([], "GPU")
    return tf
