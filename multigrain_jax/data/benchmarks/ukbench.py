"""UKBench: every photo looks for the four of its object."""

from collections.abc import Mapping

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFiles,
    Protocol,
    first_folder,
    rank_among_groups,
    require_files,
)
from multigrain_jax.errors import InputError

ORIGIN = (
    "the photos are on the page of the Recognition Benchmark Images (Nistér and "
    "Stewénius 2006), as ukbench.zip"
)
PHOTOS_OF_AN_OBJECT = 4


def load_ukbench(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """UKBench: every photo looks for the four of its object, itself among them.

    Args:
        files: `root` has ukbench00000.jpg and so on, or a folder `full` of them.
        counts: `images`, a multiple of four.

    Raises:
        InputError: photos are missing.
    """
    folder = first_folder(files.root, ("full",))
    total = counts["images"]
    if total % PHOTOS_OF_AN_OBJECT:
        raise InputError(
            f"ukbench: found expected_counts.images = {total}, expected a multiple of "
            "4, the photos of each object; round it"
        )
    names = [f"ukbench{number:05d}.jpg" for number in range(total)]
    paths = require_files("ukbench", folder, names, origin=ORIGIN)
    everything = np.arange(total)
    positives, _ = rank_among_groups(everything // PHOTOS_OF_AN_OBJECT, everything)
    nothing = np.empty(0, np.int64)
    return Benchmark(
        name="ukbench",
        root=files.root,
        paths=paths,
        queries=everything,
        database=everything,
        protocols=[Protocol("", ("score",), everything, positives, [nothing] * total)],
    )
