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
from multigrain_jax.data.benchmarks.comparable import (
    DIFFERS,
    LOWERED,
    Conduct,
    Rule,
    all_read,
    among_distractors,
    as_stored,
    complete,
    departures,
    normalized,
    normalized_by,
    pooled_by,
    seen_at,
    turned_upright,
    unexpanded,
    whitened,
    without_million,
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
    "Conduct",
    "Protocol",
    "TurnAndCrop",
    "benchmark_row",
    "departures",
    "load_benchmark",
]


class BenchmarkRow(NamedTuple):
    """How a benchmark is loaded, and what its scores are compared with.

    Attributes:
        load: its loader.
        counts: what it has; anything else is refused.
        rules: of how published scores were made, and of what lowers any.
        optional_files: the fields of `BenchmarkFiles` that it knows, beside `root`.
    """

    load: Callable[[BenchmarkFiles, Mapping[str, int]], Benchmark]
    counts: Mapping[str, int]
    rules: tuple[Rule, ...]
    optional_files: tuple[str, ...] = ()


# Of all whose scores are published.
PUBLISHED: tuple[Rule, ...] = (all_read, as_stored, unexpanded)
HOLIDAYS = {"images": 1491, "groups": 500}
UKBENCH = {"images": 10_200}
COPYDAYS = {"originals": 157, "strong": 229, "distractors": 10_000}
ROXFORD5K = {"images": 4993, "queries": 70}
RPARIS6K = {"images": 6322, "queries": 70}
DISC21 = {
    "queries": 25_000,
    "references": 1_000_000,
    "matches": 4991,
    "training": 1_000_000,
}
# As those who made the benchmark take its photos.
REVISITED = (*PUBLISHED, seen_at((1024, "rect")), whitened(None), without_million)

BENCHMARKS: Mapping[str, BenchmarkRow] = {
    "holidays": BenchmarkRow(
        load_holidays,
        HOLIDAYS,
        (
            *PUBLISHED,
            complete(HOLIDAYS),
            seen_at((500, "rect")),
            whitened(None),
            turned_upright,
        ),
        ("rotations",),
    ),
    "ukbench": BenchmarkRow(
        load_ukbench,
        UKBENCH,
        (*PUBLISHED, complete(UKBENCH), seen_at((500, "rect")), whitened(None)),
    ),
    "copydays": BenchmarkRow(
        load_copydays,
        COPYDAYS,
        (
            *PUBLISHED,
            complete(COPYDAYS),
            seen_at((224, "square"), (800, "rect")),
            whitened(None),
            among_distractors,
        ),
        ("distractors", "distractor_list"),
    ),
    "roxford5k": BenchmarkRow(
        load_roxford5k, ROXFORD5K, (*REVISITED, complete(ROXFORD5K)), ("ground_truth",)
    ),
    "rparis6k": BenchmarkRow(
        load_rparis6k, RPARIS6K, (*REVISITED, complete(RPARIS6K)), ("ground_truth",)
    ),
    "disc21": BenchmarkRow(
        load_disc21,
        DISC21,
        (
            *PUBLISHED,
            complete(DISC21),
            seen_at((512, "rect")),
            whitened(1500),
            pooled_by(7.0),
            normalized(LOWERED),
            normalized_by(2.0, 10, "nth"),
        ),
        ("ground_truth", "query_list", "reference_list", "training"),
    ),
    "copies": BenchmarkRow(
        load_copies,
        {},
        (all_read, normalized(DIFFERS)),
        ("distractors", "training"),
    ),
    "folder": BenchmarkRow(
        load_folder, {}, (all_read, normalized(DIFFERS)), ("training",)
    ),
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
