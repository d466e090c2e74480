"""One's own folder as a benchmark: each image looks for the others of its subfolder."""

from collections.abc import Mapping

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFiles,
    Protocol,
    rank_among_groups,
)
from multigrain_jax.data.benchmarks.others import TRAINING, list_others, refuse_own
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError

METRICS = ("map", "r_precision", "map_at_r", "recall_at_p90", "threshold_at_p90")


def load_folder(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """One's own folder: each image looks for the others of its subfolder.

    Images of a subfolder of one, and those beside the subfolders, are no queries; they
    are there to be found wrongly.

    Args:
        files: `root` has one subfolder of images per object; `training`, a folder of
            other images, by which the protocol "normalized" compares queries.
        counts: none.

    Raises:
        InputError: no such subfolders, none with two images; or other images
            that are none, or among these.
    """
    sieve = Sieve(files.exclude, "refuse")
    listed, objects = index_folder(files.root, split=None, sieve=sieve, instances=None)
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
    others = list_others(files.training, key=TRAINING, sieve=sieve)
    refuse_own(others, [file.path for file in listed], key=TRAINING)
    everything = np.arange(len(queries))
    # A query's own ranking stays the same: only one threshold for all gains by it.
    protocols = [
        Protocol(
            "normalized" if normalized else "all",
            METRICS,
            everything,
            positives,
            junk,
            normalized=normalized,
        )
        for normalized in ((False, True) if others else (False,))
    ]
    return Benchmark(
        name="folder",
        root=files.root,
        paths=[*(file.path for file in listed), *others],
        queries=queries,
        database=np.arange(len(listed)),
        training=len(listed) + np.arange(len(others)),
        protocols=protocols,
        apply_exif_orientation=True,
        remarks=sieve.remarks,
    )
