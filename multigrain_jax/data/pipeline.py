"""Batches of uint8 crops, decoded and cut on the host by Grain."""

import gc
import hashlib
import shutil
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grain
import numpy as np
from absl import flags

from multigrain_jax.data.autoaugment import apply_policy
from multigrain_jax.data.crops import (
    UndecodableImageError,
    decode,
    eval_transform,
    random_crop_box,
    resize_crop,
)
from multigrain_jax.data.repeated import RepeatedStream, Slot
from multigrain_jax.data.sources import ImageSource
from multigrain_jax.errors import InputError

# How many other images are tried in place of an unreadable one.
REPLACEMENT_ATTEMPTS = 20
READ_THREADS = 4
SHARED_MEMORY = "/dev/shm"

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Train:
    """Makes the crops of one image of one batch."""

    source: ImageSource
    stream: RepeatedStream
    train_size: int
    augmentation: str
    crop_area_min: float
    seed: int
    start: int
    stop: int
    slots: int

    def crops(self, element: int) -> Batch:
        """The crops of slot `element % slots` of batch `element // slots`."""
        step, number = divmod(element, self.slots)
        slots = _image_slots(self.stream, step, self.start, self.stop)
        if number >= len(slots):
            return self._rows(np.empty((0,), np.int64), -1, [], -1)
        slot = slots[number]
        image, used = self._decode(slot.index)
        crops = [
            self._crop(image, slot.first_position + k) for k in range(slot.repeats)
        ]
        bad = -1 if used == slot.index else slot.index
        return self._rows(np.full(slot.repeats, used), used, crops, bad)

    def _rows(
        self, instances: np.ndarray, used: int, crops: list[np.ndarray], bad: int
    ) -> Batch:
        size = self.train_size
        images = np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)
        label = self.source.labels[used] if used >= 0 else -1
        return {
            "image": images,
            "label": np.full(len(instances), label, np.int32),
            "instance_id": instances.astype(np.int32),
            "bad_index": np.array([bad], np.int32),
        }

    def _crop(self, image: Any, position: int) -> np.ndarray:
        rng = _generator(self.seed, position)
        box = random_crop_box(rng, *image.size, area_min=self.crop_area_min)
        crop = resize_crop(image, box, self.train_size)
        if self.augmentation == "AA":
            crop = apply_policy(rng, crop)
        return np.asarray(crop)

    def _decode(self, index: int) -> tuple[Any, int]:
        """The image, or a stand-in that depends on (seed, index) alone."""
        tried = []
        for attempt in range(REPLACEMENT_ATTEMPTS + 1):
            candidate = index if attempt == 0 else self._stand_in(index, attempt)
            try:
                return _read(self.source, candidate), candidate
            except (OSError, UndecodableImageError) as error:
                tried.append(f"{self.source.describe(candidate)}: {error}")
        listed = "\n  ".join(tried[:5])
        raise InputError(
            f"{len(tried)} images in a row could not be read, one in place of the "
            f"other; is the data set still there?\n  {listed}"
        )

    def _stand_in(self, index: int, attempt: int) -> int:
        name = f"{self.seed}/{index}/{attempt}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8]) % len(self.source)


@dataclass(frozen=True)
class _Eval:
    """Makes the evaluation crop of one image, or an empty row of the last batch."""

    source: ImageSource
    test_size: int
    test_mode: str

    def row(self, index: int) -> dict[str, Any]:
        """One row of a batch; index -1 is padding."""
        image = np.zeros((self.test_size, self.test_size, 3), np.uint8)
        bad = False
        if index >= 0:
            try:
                decoded = _read(self.source, index)
                image = np.asarray(
                    eval_transform(decoded, self.test_size, self.test_mode)
                )
            except (OSError, UndecodableImageError):
                bad = True
        return {
            "image": image,
            "label": np.int32(self.source.labels[index] if index >= 0 else -1),
            "index": np.int32(index),
            "mask": np.bool_(index >= 0),
            "bad": np.bool_(bad),
        }


def make_train_batches(
    source: ImageSource,
    stream: RepeatedStream,
    *,
    train_size: int,
    augmentation: str,
    crop_area_min: float,
    seed: int,
    first_step: int,
    num_steps: int,
    batch_slice: slice,
    num_workers: int,
    prefetch: int,
) -> Generator[Batch]:
    """Training batches `first_step` to `first_step + num_steps`.

    Every distinct image of a batch is decoded once and cropped as often as it stands
    there. The bits depend on (seed, position) alone, not on workers or on where the
    run was resumed.

    Args:
        source: the images.
        stream: which image stands where.
        train_size: side of the crops, in pixels.
        augmentation: "AA" applies AutoAugment's policy (and the flip before it) here;
            of the others only the crop is done on the host.
        crop_area_min: smallest share of an image that a crop takes.
        seed: of crops and policy.
        first_step: where to begin.
        num_steps: how many batches.
        batch_slice: this host's contiguous share of every batch.
        num_workers: reading processes; 0 reads with threads.
        prefetch: batches that are made ahead.

    Yields:
        `image` uint8 [b, S, S, 3], `label` int32 [b], `instance_id` int32 [b] and
        `bad_index` int32 [slots]: the index of each unreadable image that another one
        (with that one's own label and instance) stands in for, or -1.

    Raises:
        InputError: images without labels, or too little shared memory for the
            processes.
    """
    _require_labels(source)
    start, stop, _ = batch_slice.indices(stream.batch_size)
    slots = (stop - start - 1 + stream.num_repeats - 1) // stream.num_repeats + 1
    make = _Train(
        source=source,
        stream=stream,
        train_size=train_size,
        augmentation=augmentation,
        crop_area_min=crop_area_min,
        seed=seed,
        start=start,
        stop=stop,
        slots=slots,
    )
    elements = range(first_step * slots, (first_step + num_steps) * slots)
    dataset = (
        grain.MapDataset.source(elements)
        .map(make.crops)
        .batch(slots, batch_fn=_concatenate)
    )
    return _iterate(
        dataset,
        batch_bytes=3 * (stop - start) * train_size**2,
        num_workers=num_workers,
        prefetch=prefetch,
    )


def make_eval_batches(
    source: ImageSource,
    *,
    test_size: int,
    test_mode: str,
    batch_size: int,
    indices: Sequence[int] | None = None,
    num_workers: int = 0,
    prefetch: int = 4,
) -> Generator[Batch]:
    """Every image once, in order, in batches of one size.

    Args:
        source: the images.
        test_size: side of the centre crop, in pixels.
        test_mode: "square".
        batch_size: rows per batch; the last batch is padded.
        indices: which images; None is all.
        num_workers: reading processes; 0 reads with threads.
        prefetch: batches that are made ahead.

    Yields:
        `image` uint8 [B, S, S, 3], `label` int32 [B], `index` int32 [B] (-1: padding),
        `mask` bool [B] (False: padding) and `bad` bool [B] (unreadable: zeros).
    """
    rows = [int(i) for i in (range(len(source)) if indices is None else indices)]
    rows += [-1] * (-len(rows) % batch_size)
    make = _Eval(source, test_size, test_mode)
    dataset = grain.MapDataset.source(rows).map(make.row).batch(batch_size)
    return _iterate(
        dataset,
        batch_bytes=3 * batch_size * test_size**2,
        num_workers=num_workers,
        prefetch=prefetch,
    )


def why_unreadable(source: ImageSource, index: int) -> str | None:
    """The reason why an image cannot be decoded, or None if it can."""
    try:
        _read(source, index)
    except (OSError, UndecodableImageError) as error:
        return str(error)
    return None


def _require_labels(source: ImageSource) -> None:
    unlabelled = np.flatnonzero(np.asarray(source.labels) < 0)
    if unlabelled.size:
        raise InputError(
            f"{unlabelled.size} of {len(source)} images have no label, among them "
            f"{source.describe(int(unlabelled[0]))}; training needs one folder per "
            "class and no images beside the folders"
        )


def _read(source: ImageSource, index: int) -> Any:
    data = source.read(index)
    return decode(data, apply_exif_orientation=source.apply_exif_orientation)


@lru_cache(maxsize=64)
def _image_slots(
    stream: RepeatedStream, step: int, start: int, stop: int
) -> list[Slot]:
    # Every slot of a batch asks for the same list.
    return stream.image_slots(step, start, stop)


def _generator(seed: int, position: int) -> np.random.Generator:
    # A key of 128 bits: no two (seed, position) share a stream.
    return np.random.Generator(np.random.Philox(key=(seed << 64) | position))


def _concatenate(parts: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _iterate(
    dataset: grain.MapDataset, *, batch_bytes: int, num_workers: int, prefetch: int
) -> Generator[Batch]:
    if num_workers == 0:
        threads = min(READ_THREADS, prefetch)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        return _closing(dataset.to_iter_dataset(options))
    # The processes are the parallelism; together they hold `prefetch` batches, and
    # each one more in its hands.
    per_worker = max(1, prefetch // num_workers)
    _check_shared_memory(batch_bytes * num_workers * (per_worker + 1), num_workers)
    if not flags.FLAGS.is_parsed():
        # Grain's processes read absl's flags; a Python user has not parsed any.
        flags.FLAGS(sys.argv[:1])
    iterable = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    ).mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=num_workers, per_worker_buffer_size=per_worker
        )
    )
    return _closing(iterable)


def _closing(iterable: grain.IterDataset) -> Generator[Batch]:
    iterator = iter(iterable)
    shared = False
    try:
        for batch in iterator:
            # Batches of other processes lie in shared memory, which is freed with the
            # first array object over it, whatever still looks at it.
            shared = type(batch["image"]) is not np.ndarray
            yield {name: np.array(a) for name, a in batch.items()} if shared else batch
    finally:
        iterator.close()
        if shared:
            # Grain's iterator keeps its last batches in reference cycles, and memory
            # that is shared until the process ends is reported as leaked.
            del iterator, batch
            gc.collect()


def _check_shared_memory(needed: int, num_workers: int) -> None:
    """Refuse to start where the reading processes would be killed for memory."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return  # a system without that folder
    if free < needed:
        raise InputError(
            f"num_workers = {num_workers}: the batches in flight take about "
            f"{needed >> 20} MiB of shared memory, and {SHARED_MEMORY} has "
            f"{free >> 20} MiB free; lower prefetch_batches, set num_workers to 0, or "
            "enlarge it (docker run --shm-size)"
        )
