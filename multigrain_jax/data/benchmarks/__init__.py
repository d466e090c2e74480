"""Retrieval benchmarks by name; none of them is downloaded."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from multigrain_jax.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFiles,
    Protocol,
    TurnAndCrop,
)
from multigrain_jax.data.benchmarks.copies import load_copies
from multigrain_jax.data.benchmarks.copydays import load_copydays
from multigrain_jax.data.benchmarks.disc21 import load_disc21
from multigrain_jax.data.benchmarks.folder import load_folder
from multigrain_jax.data.benchmarks.holidays import load_holidays
from multigrain_jax.data.benchmarks.images import BenchmarkSource
from multigrain_jax.data.benchmarks.revisited import load_roxford5k, load_rparis6k
from multigrain_jax.data.benchmarks.ukbench import load_ukbench
from multigrain_jax.errors import InputError

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkFiles",
    "BenchmarkRow",
    "BenchmarkSource",
    "Protocol",
    "TurnAndCrop",
    "benchmark_row",
    "load_benchmark",
]


class BenchmarkRow(NamedTuple):
    """How a benchmark is loaded.

    Attributes:
        load: its loader.
        counts: what it has; anything else is refused.
        optional_files: the fields of `BenchmarkFiles` that it knows, beside `root`.
    """

    load: Callable[[BenchmarkFiles, Mapping[str, int]], Benchmark]
    counts: Mapping[str, int]
    optional_files: tuple[str, ...] = ()


BENCHMARKS: Mapping[str, BenchmarkRow] = {
    "holidays": BenchmarkRow(
        load_holidays, {"images": 1491, "groups": 500}, ("rotations",)
    ),
    "ukbench": BenchmarkRow(load_ukbench, {"images": 10_200}),
    "copydays": BenchmarkRow(
        load_copydays,
        {"originals": 157, "strong": 229, "distractors": 10_000},
        ("distractors", "distractor_list"),
    ),
    "roxford5k": BenchmarkRow(
        load_roxford5k, {"images": 4993, "queries": 70}, ("ground_truth",)
    ),
    "rparis6k": BenchmarkRow(
        load_rparis6k, {"images": 6322, "queries": 70}, ("ground_truth",)
    ),
    "disc21": BenchmarkRow(
        load_disc21,
        {
            "queries": 25_000,
            "references": 1_000_000,
            "matches": 4991,
            "training": 1_000_000,
        },
        ("ground_truth", "query_list", "reference_list", "training"),
    ),
    "copies": BenchmarkRow(load_copies, {}, ("distractors", "training")),
    "folder": BenchmarkRow(load_folder, {}, ("training",)),
}


def benchmark_row(name: str) -> BenchmarkRow:
    """The row of a benchmark; InputError if there is none of that name."""
    if name not in BENCHMARKS:
        raise InputError(
            f"benchmark: found {name!r}, expected one of {', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name]


def load_benchmark(
    name: str, files: BenchmarkFiles, *, expected_counts: Mapping[str, int]
) -> Benchmark:
    """Read a benchmark from its folder, and check that nothing is missing.

    Args:
        name: a key of `BENCHMARKS`.
        files: where it is.
        expected_counts: for a smaller copy: what it has instead of the benchmark's
            own counts, which hold for what is not named.

    Raises:
        InputError: no such benchmark, files are missing or too many, or `files` or
            `expected_counts` name what the benchmark does not know.
    """
    row = benchmark_row(name)
    given = [
        field.name
        for field in dataclasses.fields(files)
        if field.name not in ("root", "exclude")
        and getattr(files, field.name) is not None
    ]
    for what, names, known in (
        ("files", given, row.optional_files),
        ("expected_counts", expected_counts, tuple(row.counts)),
    ):
        strange = [key for key in names if key not in known]
        if strange:
            raise InputError(
                f"{name}: {what} has {', '.join(strange)}, which the benchmark does "
                f"not know; expected {', '.join(known) or 'none'}"
            )
    return row.load(files, {**row.counts, **expected_counts})
