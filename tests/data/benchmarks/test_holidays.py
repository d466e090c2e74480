"""INRIA Holidays: its protocol, and the table that turns photos upright."""

import dataclasses

import numpy as np
import pytest
from helpers.rankings import scores_of

from multigrain_jax.data.benchmarks import BenchmarkSource, TurnAndCrop, load_benchmark
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.reading import read_image
from multigrain_jax.errors import InputError


def test_holidays_by_hand(load):
    # The first group's others at ranks 0 and 2 (behind one stranger), itself ahead.
    similarity = np.zeros((3, 7))
    similarity[0] = [9, 8, 6, 7, 0, 0, 0]
    similarity[1] = [0, 0, 0, 9, 8, 0, 0]
    similarity[2] = [0, 0, 0, 0, 0, 9, 8]
    first = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    found = scores_of(load("holidays"), similarity)
    assert found == {"holidays/all/map": pytest.approx((first + 2) / 3)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "text",
    ['{\n"100001.jpg": 90,\n"100100.jpg": 0,\n}\n', "100001.jpg 90\n# upright\n"],
)
def test_holidays_are_turned_by_the_table(makers, tmp_path, picture, text, encoding):
    files, counts = makers["holidays"](tmp_path / "holidays")
    table = tmp_path / "rotations"
    table.write_text(text, encoding=encoding)
    upright = dataclasses.replace(files, rotations=table)
    benchmark = load_benchmark("holidays", upright, expected_counts=counts)
    assert benchmark.turned_or_cropped == {1: TurnAndCrop(clockwise=90)}
    source = BenchmarkSource(benchmark, PLAIN)
    assert [read_image(source, index).size for index in (0, 1)] == [(12, 8), (8, 12)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100001.jpg: 45", "found the line '100001.jpg: 45'"),
        ("100001.jpg", "found the line"),
        ("999999.jpg: 90", "turns none of the photos"),
        (None, "cannot be read .* original MultiGrain repository"),
    ],
)
def test_a_broken_table_of_rotations_is_refused(makers, tmp_path, text, message):
    files, counts = makers["holidays"](tmp_path / "holidays")
    table = tmp_path / "rotations"
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=message):
        load_benchmark(
            "holidays",
            dataclasses.replace(files, rotations=table),
            expected_counts=counts,
        )
