"""What devices and hosts have found, against one sort of everything."""

import jax
import numpy as np
import pytest

from multigrain_jax.descriptors import merging
from multigrain_jax.descriptors.merging import merge_devices, merge_hosts

K = 5


@pytest.fixture
def found():
    """Of 24 rows six were found by each of four, [4, Q, K], with many ties."""
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (3, 24)).astype(np.float32)
    similarity[:, 6:12] = -np.inf  # of the second none is live
    values, rows = [], []
    for start in range(0, 24, 6):
        part = similarity[:, start : start + 6]
        order = np.argsort(-part, axis=1, kind="stable")[:, :K]
        values.append(np.take_along_axis(part, order, axis=1))
        rows.append(np.where(np.isneginf(values[-1]), -1, order + start))
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :K]
    best = np.take_along_axis(similarity, expected, axis=1)
    return np.stack(values), np.stack(rows).astype(np.int32), best, expected


def test_devices_agree_with_one_sort(found):
    values, rows, best, expected = found
    merged = merge_devices([(values, rows)], 3, K)
    np.testing.assert_array_equal(merged[0], best)
    np.testing.assert_array_equal(merged[1], expected)
    assert merged[1].dtype == np.int64
    none = merge_devices([], 0, K)
    assert [part.shape for part in none] == [(0, K), (0, K)]


def test_hosts_agree_with_one_sort(found, monkeypatch):
    values, rows, best, expected = found
    alone = merge_hosts(values[0], rows[0])
    np.testing.assert_array_equal(alone[1], rows[0])
    own = {np.dtype(np.float32): values, np.dtype(np.int64): rows.astype(np.int64)}
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(merging, "gather_shares", lambda share: own[share.dtype])
    merged = merge_hosts(values[2], rows[2].astype(np.int64))
    np.testing.assert_array_equal(merged[0], best)
    np.testing.assert_array_equal(merged[1], expected)
