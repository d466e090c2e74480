"""Where a run departs from how published scores were made, and which way that goes.

Scores of another protocol cannot be compared, and nothing in a number tells. A
benchmark's row names the rules that hold of it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from multigrain_jax.data.benchmarks.benchmark import Benchmark

# What is said of scores, by the key of results.json that holds the lines.
WAYS = {
    "lowered_by": "lowered",
    "raised_by": "raised",
    "differs_by": "of another protocol than usual",
}
LOWERED, RAISED, DIFFERS = WAYS
# Counts of what may be found wrongly: with less of it, scores are higher.
FOUND_WRONGLY = {"images", "originals", "references", "distractors"}


class Conduct(NamedTuple):
    """What scores depend on, beside the photos and the network's weights.

    Attributes:
        test_sizes: in pixels; of several, descriptors are means over them.
        test_mode: "square" or "rect".
        pooling_exponent: p.
        whitening_dim: components of the descriptors' whitening; None: there is none.
        pixels: how photos become pixels: "plain", "upright" or "viewer".
        num_expanded: neighbours that join a query.
        normalization: weight, neighbours and reduction of normalised scores.
        files: the fields of `BenchmarkFiles` that are given, beside `root`.
        counts: how many of what there should be, as the files were checked by.
        num_unreadable: photos without a descriptor.
    """

    test_sizes: tuple[int, ...]
    test_mode: str
    pooling_exponent: float
    whitening_dim: int | None
    pixels: str
    num_expanded: int
    normalization: tuple[float, int, str]
    files: frozenset[str]
    counts: Mapping[str, int]
    num_unreadable: int


# A way, and a line that says what and the remedy.
Line = tuple[str, str]
Rule = Callable[[Benchmark, Conduct], Iterator[Line]]


def departures(
    rules: tuple[Rule, ...], benchmark: Benchmark, conduct: Conduct
) -> dict[str, list[str]]:
    """A key of `WAYS` -> its lines, of those ways that have any."""
    lines = [line for rule in rules for line in rule(benchmark, conduct)]
    return {
        way: [text for found, text in lines if found == way]
        for way in WAYS
        if any(found == way for found, _ in lines)
    }


def all_read(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """A photo that cannot be read is found by nobody."""
    if conduct.num_unreadable:
        yield (
            LOWERED,
            f"{conduct.num_unreadable} of {len(benchmark.paths)} photos cannot be read "
            "and are not found; skipped.txt names them, take them anew",
        )


def seen_at(*published: tuple[int, str]) -> Rule:
    """Photos are taken at a size and in a mode of published scores.

    Args:
        published: each size in pixels, with its mode.
    """
    named = " or ".join(
        f"--config.test_size={size} --config.test_mode={mode}"
        for size, mode in published
    )

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        (first, *more), mode = conduct.test_sizes, conduct.test_mode
        if more:
            yield (
                DIFFERS,
                f"descriptors are means over the sizes {conduct.test_sizes}, published "
                f"ones are of one size: {named}",
            )
        elif (first, mode) not in published:
            alike = [size for size, other in published if other == mode]
            smaller = bool(alike) and first < min(alike)
            yield (
                LOWERED if smaller else DIFFERS,
                f'photos are taken at {first} pixels ("{mode}"), for published scores '
                f"otherwise: {named}",
            )

    return rule


def whitened(num_components: int | None) -> Rule:
    """Descriptors are whitened, to so many components; None: however many."""

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        if conduct.whitening_dim is None:
            yield (
                LOWERED,
                "the descriptors are not whitened, those of published scores are; give "
                "a checkpoint of configs/whiten.py",
            )
        elif num_components not in (None, conduct.whitening_dim):
            yield (
                DIFFERS,
                f"the descriptors are whitened to {conduct.whitening_dim} components, "
                f"for published scores to {num_components}; whiten with "
                f"--config.num_components={num_components}",
            )

    return rule


def pooled_by(exponent: float) -> Rule:
    """GeM pooling has the exponent of published scores."""

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        if conduct.pooling_exponent != exponent:
            yield (
                DIFFERS,
                f"p = {conduct.pooling_exponent:g}, for published scores {exponent:g}; "
                f"set --config.pooling_exponent={exponent:g}",
            )

    return rule


def as_stored(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """Pixels are taken as they are stored, whatever the file says of them."""
    if conduct.pixels != "plain":
        yield (
            DIFFERS,
            f'photos are decoded as "{conduct.pixels}", for published scores as they '
            "are stored; leave out --config.data.decoding",
        )


def unexpanded(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """Queries are what they are."""
    if conduct.num_expanded:
        yield (
            RAISED,
            f"queries are expanded by their {conduct.num_expanded} nearest, those of "
            "published scores are not; leave out "
            "--config.query_expansion.num_neighbours",
        )


def complete(counts: Mapping[str, int]) -> Rule:
    """There is as much of everything as the benchmark has.

    Args:
        counts: of the benchmark.
    """

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        for what, whole in counts.items():
            found = conduct.counts[what]
            optional = what in ("distractors", "training")
            of_list = "reference_list" in conduct.files and what != "training"
            if found == whole or of_list or (optional and what not in conduct.files):
                continue
            way = DIFFERS
            if what in FOUND_WRONGLY:
                way = RAISED if found < whole else LOWERED
            yield (
                way,
                f"{found} {what} take part in place of {whole}; take all of them, and "
                f"leave out --config.expected_counts.{what}",
            )
        if "reference_list" in conduct.files:
            yield (
                RAISED if len(benchmark.database) < counts["references"] else DIFFERS,
                f"{len(benchmark.queries)} queries look among the "
                f"{len(benchmark.database)} references of a list, in place of "
                f"{counts['queries']} among {counts['references']}; leave out "
                "--config.data.reference_list",
            )

    return rule


def turned_upright(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """Holidays: photos that lie on their side are turned."""
    if "rotations" not in conduct.files:
        yield (
            LOWERED,
            "the photos are taken as they are stored, and those that lie on their side "
            "are not turned upright as for the published scores; give the table of "
            "rotations with --config.data.rotations=FILE",
        )


def among_distractors(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """Copydays: copies look among 10 000 more photos."""
    if "distractors" not in conduct.files:
        yield (
            RAISED,
            "copies look among the originals alone, those of the published scores "
            "(CD10k) among 10 000 other photos too; give these with "
            "--config.data.distractors=FOLDER",
        )


def without_million(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
    """Revisited Oxford and Paris: there are scores with a million distractors too."""
    yield (
        DIFFERS,
        "the million distractors of R1M, with which harder scores are published, take "
        "no part; compare with scores without R1M",
    )


def normalized(way: str) -> Rule:
    """Similarities of different queries are comparable.

    Args:
        way: of scores without that; it helped where scores are published, with
            descriptors that are whitened.
    """

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        if not len(benchmark.training):
            yield (
                way,
                "where the pairs of all queries are ranked together (micro_ap, "
                "recall_at_p90), similarities are not normalised by those to other "
                "photos; give these with --config.data.training=FOLDER: scores named "
                '"normalized"',
            )

    return rule


def normalized_by(weight: float, neighbours: int, reduction: str) -> Rule:
    """Normalised scores are those of published ones.

    Args:
        weight: of what is subtracted.
        neighbours: which training photos count.
        reduction: "nth" or "mean" of them.
    """
    published = (weight, neighbours, reduction)

    def rule(benchmark: Benchmark, conduct: Conduct) -> Iterator[Line]:
        if len(benchmark.training) and conduct.normalization != published:
            yield (
                DIFFERS,
                "scores are normalised with weight, num_neighbours and reduction "
                f"{conduct.normalization}, published ones with {published}; leave out "
                "--config.score_normalization.weight, "
                "--config.score_normalization.num_neighbours and "
                "--config.score_normalization.reduction",
            )

    return rule
