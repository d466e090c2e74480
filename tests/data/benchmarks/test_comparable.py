"""Every benchmark says where a run departs from how published scores were made."""

from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.data.benchmarks import (
    BENCHMARKS,
    Benchmark,
    Conduct,
    departures,
)
from multigrain_jax.data.benchmarks.comparable import WAYS

OWN = {"copies", "folder"}
# How published scores were made, where it differs from `published`.
PUBLISHED = {
    "copydays": {"test_sizes": (800,), "files": frozenset({"distractors"})},
    "holidays": {"files": frozenset({"rotations"})},
    "roxford5k": {"test_sizes": (1024,)},
    "rparis6k": {"test_sizes": (1024,)},
    "disc21": {
        "test_sizes": (512,),
        "pooling_exponent": 7.0,
        "whitening_dim": 1500,
        "files": frozenset({"training"}),
    },
    "copies": {"files": frozenset({"training"})},
    "folder": {"files": frozenset({"training"})},
}


def published(name):
    """The conduct of published scores; of own photos, the best there is."""
    conduct = Conduct(
        test_sizes=(500,),
        test_mode="rect",
        pooling_exponent=3.0,
        whitening_dim=2049,
        pixels="plain",
        num_expanded=0,
        normalization=(2.0, 10, "nth"),
        files=frozenset(),
        counts=BENCHMARKS[name].counts,
        num_unreadable=0,
    )
    return conduct._replace(**PUBLISHED.get(name, {}))


def told(name, **changes):
    """What is said of a conduct with these changes; a few photos stand for all."""
    conduct = published(name)._replace(**changes)
    training = np.arange(2 * ("training" in conduct.files))
    benchmark = Benchmark(
        name=name,
        root=Path("photos"),
        paths=["1.jpg", "2.jpg", "3.jpg"],
        queries=np.arange(1),
        database=np.arange(3),
        protocols=[],
        training=training,
    )
    return departures(BENCHMARKS[name].rules, benchmark, conduct)


def counts(name, **changes):
    return {**BENCHMARKS[name].counts, **changes}


CHANGES = {
    "num_unreadable": ({"num_unreadable": 2}, "lowered_by", "2 of 3 photos cannot"),
    "small": ({"test_sizes": (200,)}, "lowered_by", "taken at 200 pixels"),
    "large": ({"test_sizes": (2000,)}, "differs_by", "taken at 2000 pixels"),
    "sizes": ({"test_sizes": (352, 500)}, "differs_by", "means over the sizes"),
    "mode": ({"test_mode": "square"}, "differs_by", "--config.test_mode=rect"),
    "plain": ({"whitening_dim": None}, "lowered_by", "configs/whiten.py"),
    "pixels": ({"pixels": "viewer"}, "differs_by", "--config.data.decoding"),
    "expanded": ({"num_expanded": 10}, "raised_by", "by their 10 nearest"),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_nothing_is_said_of_what_was_published(name):
    lines = told(name)
    if name in ("roxford5k", "rparis6k"):
        (line,) = lines.pop("differs_by")
        assert "the million distractors of R1M" in line
    assert lines == {}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - OWN))
def test_every_departure_is_said_of_every_published_benchmark(name, change):
    changes, way, fragment = CHANGES[change]
    usual = told(name)
    lines = {
        way: [line for line in found if line not in usual.get(way, ())]
        for way, found in told(name, **changes).items()
    }
    (line,) = lines.pop(way)
    assert fragment in line
    assert not any(lines.values())


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - OWN))
def test_fewer_photos_are_said(name):
    for what, whole in BENCHMARKS[name].counts.items():
        lines = told(name, counts=counts(name, **{what: whole - 4}))
        text = f"{whole - 4} {what} take part in place of {whole}"
        (way,) = [w for w, found in lines.items() if any(text in x for x in found)]
        wrong = what in ("images", "originals", "references", "distractors")
        assert way == ("raised_by" if wrong else "differs_by")


# benchmark, the change, the way, a part of the line
ITS_OWN = [
    ("holidays", {"files": frozenset()}, "lowered_by", "data.rotations=FILE"),
    ("copydays", {"files": frozenset()}, "raised_by", "data.distractors=FOLDER"),
    ("disc21", {"files": frozenset()}, "lowered_by", "data.training=FOLDER"),
    ("copies", {"files": frozenset()}, "differs_by", "data.training=FOLDER"),
    ("folder", {"files": frozenset()}, "differs_by", "data.training=FOLDER"),
    ("copies", {"num_unreadable": 1}, "lowered_by", "1 of 3 photos cannot be read"),
    ("folder", {"num_unreadable": 1}, "lowered_by", "1 of 3 photos cannot be read"),
    (
        "disc21",
        {"pooling_exponent": 3.0},
        "differs_by",
        "p = 3, for published",
    ),
    ("disc21", {"whitening_dim": 2049}, "differs_by", "whitened to 2049 components"),
    ("disc21", {"normalization": (2.0, 10, "mean")}, "differs_by", "(2.0, 10, 'mean')"),
    (
        "disc21",
        {"files": frozenset({"training", "reference_list"})},
        "raised_by",
        "1 queries look among the 3 references of a list, in place of 25000 among",
    ),
    (
        "copydays",
        {"counts": counts("copydays", distractors=20_000)},
        "lowered_by",
        "20000 distractors take part in place of 10000",
    ),
]


@pytest.mark.parametrize(("name", "changes", "way", "fragment"), ITS_OWN)
def test_what_is_a_benchmark_s_own_is_said(name, changes, way, fragment):
    lines = told(name, **changes)
    assert lines.keys() == {way}
    (line,) = lines[way]
    assert fragment in line


def test_what_is_not_there_is_not_counted():
    few = counts("copydays", distractors=5)
    (line,) = told("copydays", counts=few, files=frozenset())["raised_by"]
    assert "among the originals alone" in line
    listed = frozenset({"training", "reference_list"})
    few = counts("disc21", references=3, queries=1, training=9)
    lines = told("disc21", counts=few, files=listed)
    assert [len(found) for found in lines.values()] == [1, 1]
    assert "9 training take part" in lines["differs_by"][0]
    # Without training photos nothing is normalised, whatever the settings.
    lines = told("disc21", files=frozenset(), normalization=(1.0, 5, "mean"))
    assert lines.keys() == {"lowered_by"}


def test_copydays_has_two_published_looks():
    assert told("copydays", test_sizes=(224,), test_mode="square") == {}
    (line,) = told("copydays", test_sizes=(200,), test_mode="square")["lowered_by"]
    assert "--config.test_size=224 --config.test_mode=square or" in line


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_rules_that_speak(name):
    """Of a benchmark that is added, somebody must have said what lowers its scores."""
    worst = Conduct(
        test_sizes=(32,),
        test_mode="rect",
        pooling_exponent=1.0,
        whitening_dim=None,
        pixels="viewer",
        num_expanded=3,
        normalization=(1.0, 1, "mean"),
        files=frozenset(),
        counts=dict.fromkeys(BENCHMARKS[name].counts, 1),
        num_unreadable=1,
    )
    lines = told(name, **worst._asdict())
    assert lines.keys() <= WAYS.keys()
    said = [line for found in lines.values() for line in found]
    assert len(said) >= 2
    assert len(set(said)) == len(said)
    if name not in OWN:
        assert set(lines) == set(WAYS)
    for line in said:
        # What is so, and the remedy.
        assert line[0].islower() or line[0].isdigit()
        assert ";" in line or "--config." in line
        assert not line.endswith(".")
