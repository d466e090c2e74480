"""Training batches of uint8 crops, decoded and cut on the host by Grain."""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from multigrain_jax.data.autoaugment import apply_policy
from multigrain_jax.data.copies import apply_copies
from multigrain_jax.data.crops import random_crop_box
from multigrain_jax.data.decoding import Reduced, UndecodableImageError
from multigrain_jax.data.network_image import FAST_GAP
from multigrain_jax.data.reading import HostBatch, Reading, iterate, read_reduced
from multigrain_jax.data.reduction import reduced_box
from multigrain_jax.data.repeated import RepeatedStream, Slot
from multigrain_jax.data.simd_resize import CropResizer, crop_resizer
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.trivialaugment import apply_trivial
from multigrain_jax.errors import InputError, printable

# How many other images are tried in place of an unreadable one.
REPLACEMENT_ATTEMPTS = 20
# Augmentations whose operations, and the flip before them, are Pillow's.
HOST_AUGMENTATIONS: dict[
    str, Callable[[np.random.Generator, Image.Image], Image.Image]
] = {
    "AA": apply_policy,
    "copies": apply_copies,
    "trivial": apply_trivial,
}


@dataclass(frozen=True)
class _Train:
    """Makes this host's share, samples `start` to `stop`, of a batch."""

    source: ImageSource
    stream: RepeatedStream
    train_size: int
    augmentation: str
    crop_area_min: float
    resize: CropResizer
    seed: int
    start: int
    stop: int

    def batch(self, step: int) -> HostBatch:
        """The share of batch `step`; every crop is written to its place at once."""
        count, size = self.stop - self.start, self.train_size
        images = np.empty((count, size, size, 3), np.uint8)
        indices = np.empty(count, np.int32)
        bad = np.full(self.stream.max_slots(count), -1, np.int32)
        noted = bad.copy()
        row = 0
        slots = list(self.stream.image_slots(step, self.start, self.stop))
        self.source.ask_for([slot.index for slot in slots])
        for number, slot in enumerate(slots):
            reduced, used = self._decode(slot)
            if used != slot.index:
                bad[number] = slot.index
            if reduced.notes:
                noted[number] = used
            indices[row : row + slot.repeats] = used
            for repeat in range(slot.repeats):
                images[row] = self._crop(reduced, slot.first_position + repeat)
                row += 1
        known = self.source.instances
        return {
            "image": images,
            "label": self.source.labels[indices].astype(np.int32),
            "instance_id": indices if known is None else known[indices],
            "image_index": indices,
            "bad_index": bad,
            "noted_index": noted,
        }

    def _crop(self, photo: Reduced, position: int) -> np.ndarray:
        rng = _generator(self.seed, position)
        box = random_crop_box(rng, *photo.whole, area_min=self.crop_area_min)
        box = reduced_box(box, photo.whole, photo.part)
        crop = self.resize(photo.image, box, self.train_size)
        if (apply := HOST_AUGMENTATIONS.get(self.augmentation)) is not None:
            crop = apply(rng, crop)
        return np.asarray(crop)

    def _decode(self, slot: Slot) -> tuple[Reduced, int]:
        """The image, or a stand-in that depends on (seed, index) alone."""
        index, tried = slot.index, []
        side = partial(self._enough, slot.first_position)
        for attempt in range(REPLACEMENT_ATTEMPTS + 1):
            candidate = index if attempt == 0 else self._stand_in(index, attempt)
            try:
                return read_reduced(self.source, candidate, side=side), candidate
            except (OSError, UndecodableImageError) as error:
                tried.append(printable(f"{self.source.describe(candidate)}: {error}"))
        listed = "\n  ".join(tried[:5])
        raise InputError(
            f"{len(tried)} images in a row could not be read, one in place of the "
            f"other; is the data set still there?\n  {listed}"
        )

    def _enough(self, position: int, width: int, height: int) -> int:
        """The longer side of an image that every crop of it can be cut from.

        Each is still `FAST_GAP` times as large as it is resized to. All R of them
        count, also those in the share of another host: the same pixels everywhere.
        """
        shortest = min(width, height)
        for each in self.stream.augmentations_of(position):
            rng = _generator(self.seed, each)
            left, top, right, bottom = random_crop_box(
                rng, width, height, area_min=self.crop_area_min
            )
            shortest = min(shortest, right - left, bottom - top)
        return -(-FAST_GAP * self.train_size * max(width, height) // shortest)

    def _stand_in(self, index: int, attempt: int) -> int:
        name = f"{self.seed}/{index}/{attempt}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8]) % len(self.source)


def make_train_batches(
    source: ImageSource,
    stream: RepeatedStream,
    *,
    train_size: int,
    augmentation: str,
    crop_area_min: float,
    crop_resize: str,
    seed: int,
    first_step: int,
    num_steps: int,
    batch_slice: slice,
    reading: Reading,
) -> Generator[HostBatch]:
    """Training batches `first_step` to `first_step + num_steps`.

    Every distinct image of a batch is decoded once and cropped as often as it stands
    there. The bits depend on (seed, position) alone, not on workers or on where the
    run was resumed. Where the source's photos are to be decoded `fast`, a large JPEG is
    decoded at a half, a quarter or an eighth of its size if each of its R crops is then
    still twice as large as it is resized to; crops begin and end at the nearest pixels.

    Args:
        source: the images.
        stream: which image stands where.
        train_size: side of the crops, in pixels.
        augmentation: those of `HOST_AUGMENTATIONS` are applied here (with the flip
            before them); of the others only the crop is done on the host.
        crop_area_min: smallest share of an image that a crop takes.
        crop_resize: "pillow", or "simd" for nearly the same values in less time.
        seed: of crops and policy.
        first_step: where to begin.
        num_steps: how many batches.
        batch_slice: this host's contiguous share of every batch.
        reading: how batches are read ahead.

    Yields:
        `image` uint8 [b, S, S, 3], `label` int32 [b], `instance_id` int32 [b]: the
        instance, which is the image itself where the source knows of none,
        `image_index` int32 [b] and `bad_index` int32 [slots]: the index of each
        unreadable image that another one (with that one's own label and instance)
        stands in for, or -1; `noted_index` int32 [slots]: the index of each image that
        there is something to say of, or -1.

    Raises:
        InputError: another `crop_resize`, or its package is missing.
    """
    start, stop, _ = batch_slice.indices(stream.batch_size)
    make = _Train(
        source=source,
        stream=stream,
        train_size=train_size,
        augmentation=augmentation,
        crop_area_min=crop_area_min,
        resize=crop_resizer(crop_resize),
        seed=seed,
        start=start,
        stop=stop,
    )
    steps = range(first_step, first_step + num_steps)
    return iterate(
        make.batch,
        steps,
        batch_bytes=3 * (stop - start) * train_size**2,
        photo_bytes=source.decoding.max_bytes,
        reading=reading,
    )


def _generator(seed: int, position: int) -> np.random.Generator:
    # A key of 128 bits: no two (seed, position) share a stream.
    return np.random.Generator(np.random.Philox(key=(seed << 64) | position))
