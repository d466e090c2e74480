"""Rows have numbers of their own."""

import numpy as np

from multigrain_jax.descriptors.approximate.engine import (
    first_number,
    row_numbers,
    shards_and_rows,
)


def test_numbers_tell_shard_and_row():
    rows = np.array([0, 1, 2**32 - 1])
    for shard in (0, 3, 2**20):
        numbers = row_numbers(shard, rows)
        assert numbers.dtype == np.int64 and numbers[0] == first_number(shard)
        assert numbers[-1] < first_number(shard + 1)
        shards, back = shards_and_rows(numbers)
        np.testing.assert_array_equal(shards, shard)
        np.testing.assert_array_equal(back, rows)
