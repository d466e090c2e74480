"""Differences between recipes are those of the same seeds."""

import pytest

from measure import quality_table


def test_differences_are_of_the_same_seeds():
    mean, error, count = quality_table.paired_difference(
        {0: 0.5, 1: 0.7, 2: 0.6, 7: 9.0}, {0: 0.4, 1: 0.4, 2: 0.4, 3: 5.0}
    )
    assert count == 3
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx(0.1 / 3**0.5)
    assert quality_table.paired_difference({0: 1.0}, {1: 1.0}) is None
