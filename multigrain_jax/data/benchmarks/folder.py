"""One's own folder as a benchmark: each image looks for the others of its subfolder."""

from collections.abc import Mapping

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    METRICS_WITH_THRESHOLD,
    Benchmark,
    BenchmarkFiles,
    Protocol,
    rank_among_groups,
)
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError


def load_folder(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """One's own folder: each image looks for the others of its subfolder.

    Images of a subfolder of one, and those beside the subfolders, are no queries; they
    are there to be found wrongly.

    Args:
        files: `root` has one subfolder of images per object.
        counts: none.

    Raises:
        InputError: no such subfolders, or none with two images.
    """
    sieve = Sieve(files.exclude, "refuse")
    listed, objects = index_folder(files.root, split=None, sieve=sieve)
    groups = np.array([file.label for file in listed], np.int64)
    sizes = np.bincount(groups[groups >= 0], minlength=len(objects))
    is_query = (groups >= 0) & (np.append(sizes, 0)[groups] > 1)
    queries = np.flatnonzero(is_query)
    if not len(queries):
        raise InputError(
            f"{files.root}: {len(listed)} images in {len(objects)} subfolders, "
            "expected one subfolder per object, with two or more images in it; move "
            "the images of each object into a folder of their own"
        )
    positives, junk = rank_among_groups(groups, queries)
    return Benchmark(
        name="folder",
        root=files.root,
        paths=[file.path for file in listed],
        queries=queries,
        database=np.arange(len(listed)),
        protocols=[
            Protocol(
                "all", METRICS_WITH_THRESHOLD, np.arange(len(queries)), positives, junk
            )
        ],
        apply_exif_orientation=True,
        remarks=sieve.remarks,
    )
