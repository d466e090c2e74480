"""UKBench: its photos are numbered, and so are those that are missing."""

import pytest

from multigrain_jax.data.benchmarks import load_benchmark
from multigrain_jax.errors import InputError


def test_the_first_ten_missing_files_are_named(makers, tmp_path):
    files, _ = makers["ukbench"](tmp_path)
    with pytest.raises(InputError, match="12 of 20 files") as caught:
        load_benchmark("ukbench", files, expected_counts={"images": 20})
    assert "ukbench00017.jpg, …" in str(caught.value)
    assert "ukbench00018.jpg" not in str(caught.value)


def test_four_photos_in_a_row_are_one_object(load):
    benchmark = load("ukbench")
    (protocol,) = benchmark.protocols
    found = [positives.tolist() for positives in protocol.positives]
    assert found == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7]] * 4
    assert protocol.metrics == ("score",)
