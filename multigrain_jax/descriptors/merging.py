"""The best of what several devices, and several hosts, have found."""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from multigrain_jax.distributed import gather_shares


def merge_devices(
    found: Sequence[tuple[jax.Array, jax.Array]], num_queries: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """What all devices found, [devices, Q, k] each, as [Q, k].

    Args:
        found: similarities and rows of one block of queries after the other.
        num_queries: Q, without the padding of the last block.
        k: how many are wanted.
    """
    if not found:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    values, rows = (
        np.concatenate([np.concatenate(list(part), axis=1) for part in parts])
        for parts in zip(*jax.device_get(found), strict=True)
    )
    return _best(values[:num_queries], rows[:num_queries].astype(np.int64), k)


def merge_hosts(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What all hosts found, [Q, k] each, as [Q, k]; all of them have to call it."""
    if jax.process_count() == 1:
        return values, rows
    all_values = np.concatenate(list(gather_shares(values)), axis=1)
    all_rows = np.concatenate(list(gather_shares(rows)), axis=1)
    return _best(all_values, all_rows, values.shape[1])


def _best(
    values: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each line, equal ones in the order of the rows."""
    order = np.lexsort((rows, -values), axis=-1)[:, :k]
    take = partial(np.take_along_axis, indices=order, axis=1)
    return take(values), take(rows)
