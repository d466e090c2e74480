"""Repeated augmentation: which image stands at which place of which batch.

Every image of a shuffled data set is emitted R times in a row, each time to be
augmented anew (MultiGrain, section 3.2). Where it is known which images show the same
thing, a few of those follow one another. All of it is arithmetic on (seed, position):
nothing depends on workers, hosts or on what was read before.
"""

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np


class Slot(NamedTuple):
    """One image of a batch and its augmentations, which stand in a row.

    Attributes:
        index: the image's index in the data set.
        first_position: position of the first of its samples, counted over the run.
        repeats: how many samples of the batch are augmentations of it.
    """

    index: int
    first_position: int
    repeats: int


class KnownInstances:
    """Which images show the same thing, and how many of them stand side by side."""

    def __init__(self, instances: np.ndarray, *, photos_per_instance: int):
        """Take the instances as they are.

        Args:
            instances: int [N], a number for each image.
            photos_per_instance: m, the most images of an instance in a row.
        """
        _, self._instances = np.unique(instances, return_inverse=True)
        self._sizes = np.bincount(self._instances)
        self._parts = -(-self._sizes // photos_per_instance)

    @property
    def largest(self) -> int:
        """How many images the instance has that has the most."""
        return int(self._sizes.max())

    def permutation(self, rng: np.random.Generator) -> np.ndarray:
        """All images once, int64 [N], those of an instance in rows of at most m.

        The images of an instance are dealt anew into the fewest rows, whose lengths
        differ by at most one, and the rows of all instances are shuffled.
        """
        order = rng.permutation(len(self._instances))
        order = order[np.argsort(self._instances[order], kind="stable")]
        instance = self._instances[order]
        place = np.arange(len(order)) - (np.cumsum(self._sizes) - self._sizes)[instance]
        first_part = np.cumsum(self._parts) - self._parts
        part = place * self._parts[instance] // self._sizes[instance]
        turn = rng.permutation(int(self._parts.sum()))[first_part[instance] + part]
        return order[np.argsort(turn, kind="stable")]


class RepeatedStream:
    """The order of samples of a whole training run.

    Sample j of an epoch is image perm[j // R mod N], with a new permutation whenever
    one is used up, and every epoch starts a new one. An epoch has
    int(N · epoch_len_factor) samples; its last batch is filled from the continuing
    stream, so that every batch is whole. With known instances, the permutations are
    those that keep m images of an instance side by side.
    """

    def __init__(
        self,
        *,
        num_images: int,
        num_repeats: int,
        epoch_len_factor: float,
        batch_size: int,
        seed: int,
        known: KnownInstances | None = None,
    ):
        """Fix the order.

        Args:
            num_images: N, images of the data set.
            num_repeats: R, augmentations of each image in a row.
            epoch_len_factor: samples of an epoch over N.
            batch_size: samples of a batch.
            seed: of the permutations.
            known: of the N images; None: each is an instance of its own.
        """
        self.num_images = num_images
        self.num_repeats = num_repeats
        self.batch_size = batch_size
        self.seed = seed
        self._known = known
        self.steps_per_epoch = max(
            1, ceil(int(num_images * epoch_len_factor) / batch_size)
        )

    @property
    def max_positives(self) -> int:
        """The most other samples of one instance that a batch can hold."""
        round_length = self.num_images * self.num_repeats
        if self.steps_per_epoch * self.batch_size <= round_length:
            rounds = 1
        else:
            # A batch can see the end of one permutation and the start of the next.
            rounds = ceil((self.batch_size - 1) / round_length) + 1
        images = self._known.largest if self._known else 1
        return min(rounds * images * self.num_repeats, self.batch_size) - 1

    def max_slots(self, count: int) -> int:
        """The most images that `count` consecutive samples can be cut from."""
        return ceil((count - 1) / self.num_repeats) + 1

    def sample_ids(self, step: int) -> np.ndarray:
        """Image indices of batch `step`, int64 [batch_size]."""
        epoch, first = self._place(step)
        offsets = (first + np.arange(self.batch_size)) // self.num_repeats
        ids = np.empty(self.batch_size, np.int64)
        for number in np.unique(offsets // self.num_images):
            here = offsets // self.num_images == number
            order = _permutation(
                self.num_images, self.seed, epoch, int(number), self._known
            )
            ids[here] = order[offsets[here] % self.num_images]
        return ids

    def image_slots(self, step: int, start: int, stop: int) -> list[Slot]:
        """The images behind samples `start:stop` of batch `step`, in order.

        Groups cut at the edges of the slice have fewer repeats.
        """
        _, first = self._place(step)
        ids = self.sample_ids(step)
        slots = []
        position = start
        while position < stop:
            group_end = ((first + position) // self.num_repeats + 1) * self.num_repeats
            end = min(stop, group_end - first)
            slots.append(
                Slot(
                    int(ids[position]),
                    step * self.batch_size + position,
                    end - position,
                )
            )
            position = end
        return slots

    def augmentations_of(self, position: int) -> range:
        """The positions of all R augmentations of the image at a position of the run.

        Those of one image, whichever of them a batch or a host has; at the end of an
        epoch the last positions are another image's, and count as if they were not.
        """
        step, within = divmod(position, self.batch_size)
        start = position - (self._place(step)[1] + within) % self.num_repeats
        return range(start, start + self.num_repeats)

    def _place(self, step: int) -> tuple[int, int]:
        """A batch's epoch and its first sample within it."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch, within * self.batch_size


def reference_epoch(
    rng: np.random.RandomState,
    *,
    num_images: int,
    batch_size: int,
    num_repeats: int,
    epoch_len_factor: float,
    shuffle: bool,
) -> list[list[int]]:
    """One epoch of batches as the original's sampler gives them.

    For comparison with it: the last batch may be smaller, and groups are cut at the
    batches' edges.

    Args:
        rng: NumPy's legacy generator, advanced by one permutation per pass.
        num_images: N.
        batch_size: samples of a batch.
        num_repeats: R.
        epoch_len_factor: samples of an epoch over N.
        shuffle: permute the images, or take them in order.
    """
    wanted = int(num_images * epoch_len_factor)
    samples: list[int] = []
    while len(samples) < wanted:
        order = rng.permutation(num_images) if shuffle else np.arange(num_images)
        samples += np.repeat(order, num_repeats).tolist()
    samples = samples[:wanted]
    return [samples[i : i + batch_size] for i in range(0, wanted, batch_size)]


@lru_cache(maxsize=4)
def _permutation(
    num_images: int,
    seed: int,
    epoch: int,
    number: int,
    known: KnownInstances | None,
) -> np.ndarray:
    sequence = np.random.SeedSequence([seed, epoch, number])
    rng = np.random.Generator(np.random.Philox(sequence))
    return rng.permutation(num_images) if known is None else known.permutation(rng)
