"""How images are read ahead of their use, by threads or by processes."""

import itertools
import os
import sys
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from typing import NamedTuple

from absl import flags
from PIL import Image

from multigrain_jax.data.decoding import (
    Decoded,
    Reduced,
    UndecodableImageError,
    decode_noted,
    decode_reduced,
)
from multigrain_jax.data.network_image import network_image
from multigrain_jax.data.patience import patiently
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.watchdog import (
    Batches,
    HostBatch,
    never,
    read_and_restart,
)
from multigrain_jax.data.workers import Processes, begin_processes, fitting

# More threads than cores contend for the interpreter; a second one always decodes while
# the first waits for a file.
MIN_READ_THREADS, MAX_READ_THREADS = 2, 4
# Queues, semaphores and shared memory of a reading process, as the parent has them.
OPEN_FILES_PER_PROCESS = 32
OPEN_FILES = "/proc/self/fd"


class Reading(NamedTuple):
    """How batches are read ahead of their use.

    Attributes:
        num_workers: reading processes; 0 reads with threads.
        prefetch: batches that are made ahead.
        timeout_s: how long to wait for a batch.
        give_up: whether to wait no longer; asked while no batch comes.
    """

    num_workers: int
    prefetch: int
    timeout_s: float
    give_up: Callable[[], bool] = never


def read_image(source: ImageSource, index: int) -> Image.Image:
    """One image, decoded; OSError or UndecodableImageError if that fails.

    Errors of the storage are waited out for a moment.
    """
    return read_noted(source, index).image


def read_noted(source: ImageSource, index: int, *, side: int | None = None) -> Decoded:
    """One image, decoded, with what there is to say of it; as `read_image`.

    Args:
        source: the images.
        index: which one.
        side: what `decode_noted` takes for a thumbnail.
    """
    try:
        data = patiently(lambda: source.read(index))
        return decode_noted(data, source.decoding, side=side)
    except MemoryError as error:
        raise UndecodableImageError("reading it takes more memory than may") from error


def read_reduced(
    source: ImageSource, index: int, *, side: Callable[[int, int], int]
) -> Reduced:
    """One image as `decode_reduced` makes it; errors as of `read_image`."""
    try:
        data = patiently(lambda: source.read(index))
        return decode_reduced(data, source.decoding, side=side)
    except MemoryError as error:
        raise UndecodableImageError("reading it takes more memory than may") from error


def read_for_network(
    source: ImageSource, index: int, *, test_size: int, mode: str, smallest_side: int
) -> Decoded:
    """One image as `network_image` makes it; errors as of `read_image`."""
    try:
        data = patiently(lambda: source.read(index))
        return network_image(
            data,
            source.decoding,
            test_size=test_size,
            mode=mode,
            smallest_side=smallest_side,
        )
    except MemoryError as error:
        raise UndecodableImageError("reading it takes more memory than may") from error


def why_unreadable(source: ImageSource, index: int) -> str | None:
    """The reason why an image cannot be decoded, or None if it can."""
    try:
        read_image(source, index)
    except (OSError, UndecodableImageError) as error:
        return str(error)
    return None


def iterate(
    make: Callable[[int], HostBatch],
    numbers: Sequence[int],
    *,
    batch_bytes: int,
    photo_bytes: int,
    reading: Reading,
) -> Generator[HostBatch]:
    """The batches of these numbers, in their order, read ahead; close it after use.

    When a reading process dies, new ones go on with the batch that is due.

    Args:
        make: a batch by its number, with an `image` among its arrays.
        numbers: of the batches.
        batch_bytes: size of one.
        photo_bytes: what decoding a photo may take.
        reading: how batches are read ahead.

    Raises:
        DataStalledError: no batch came in time, or processes die again and again.
        ReadingGivenUp: `reading.give_up` said so.
    """
    num_workers, prefetch, timeout_s, give_up = reading
    num_workers = _with_open_files(num_workers)
    # The processes are the parallelism; together they hold `prefetch` batches, and
    # each one more in its hands.
    wanted = Processes(num_workers, max(1, prefetch // max(1, num_workers)))
    if num_workers and not flags.FLAGS.is_parsed():
        # Grain's processes read absl's flags; a Python user has not parsed any.
        flags.FLAGS(sys.argv[:1])
    if num_workers:
        # As it starts, it lifts what keeps Ctrl-C from processes that start meanwhile.
        resource_tracker.ensure_running()

    starts = itertools.count()

    def read_from(first: int) -> Batches:
        rest = numbers[first:]
        # Anew each time: a process may have died of memory that others have filled.
        processes = fitting(wanted, batch_bytes, deaths=next(starts))
        if processes.number == 0 and len(rest) <= 1:
            return (make(number) for number in rest)  # there is nothing to read ahead
        # Late: a descriptor of one photo starts without it.
        import grain

        dataset = grain.MapDataset.source(rest).map(make)
        if processes.number == 0:
            cores = max(MIN_READ_THREADS, os.cpu_count() or 1)
            threads = min(MAX_READ_THREADS, cores, prefetch)
            return dataset.to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
            )
        return dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        ).mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=processes.number, per_worker_buffer_size=processes.ahead
            ),
            worker_init_fn=begin_processes(
                photo_bytes=photo_bytes,
                batches_bytes=(processes.ahead + 2) * batch_bytes,
            ),
        )

    return read_and_restart(read_from, timeout_s=timeout_s, give_up=give_up)


def _with_open_files(num_workers: int) -> int:
    """The number of reading processes; 0, with a line, where files may not be opened.

    A process that cannot be started for that leaves shared memory behind.
    """
    try:
        import resource

        open_now = len(os.listdir(OPEN_FILES))
    except (ImportError, OSError):
        return num_workers  # a system without such a limit, or without that folder
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = open_now + OPEN_FILES_PER_PROCESS * num_workers
    if num_workers == 0 or limit == resource.RLIM_INFINITY or needed <= limit:
        return num_workers
    print(
        f"WARNING: num_workers = {num_workers} takes about {needed} open files, and "
        f"the limit is {limit} (ulimit -n): images are read with threads instead; "
        "raise it, or lower num_workers",
        flush=True,
    )
    return 0
