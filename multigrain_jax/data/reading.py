"""How images are read ahead of their use, by threads or by processes."""

import gc
import shutil
import sys
from collections.abc import Generator

import grain
import numpy as np
from absl import flags
from PIL import Image

from multigrain_jax.data.crops import UndecodableImageError, decode
from multigrain_jax.data.image_source import ImageSource
from multigrain_jax.errors import InputError

READ_THREADS = 4
SHARED_MEMORY = "/dev/shm"

Batch = dict[str, np.ndarray]


def read_image(source: ImageSource, index: int) -> Image.Image:
    """One image, decoded; OSError or UndecodableImageError if that fails."""
    data = source.read(index)
    return decode(data, apply_exif_orientation=source.apply_exif_orientation)


def why_unreadable(source: ImageSource, index: int) -> str | None:
    """The reason why an image cannot be decoded, or None if it can."""
    try:
        read_image(source, index)
    except (OSError, UndecodableImageError) as error:
        return str(error)
    return None


def iterate(
    dataset: grain.MapDataset, *, batch_bytes: int, num_workers: int, prefetch: int
) -> Generator[Batch]:
    """The elements of a data set of batches, read ahead; close it after use.

    Args:
        dataset: its elements are batches, with an `image` among their arrays.
        batch_bytes: size of one.
        num_workers: reading processes; 0 reads with threads.
        prefetch: batches that are made ahead.

    Raises:
        InputError: too little shared memory for the processes.
    """
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
