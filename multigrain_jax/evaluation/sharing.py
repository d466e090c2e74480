"""What each host does of an evaluation: its rows of every batch, and of the headers."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from multigrain_jax.data.eval_batches import (
    EvalPlan,
    measured_sizes,
    plan_batches,
)
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import (
    gather_rows,
    gather_shares,
    host_rows,
    host_slices,
)
from multigrain_jax.errors import InputError


def plan_together(
    source: ImageSource,
    *,
    test_size: int,
    test_mode: str,
    batch_size: int,
    smallest_side: int,
    timeout_s: float,
) -> EvalPlan:
    """`plan_batches` of all images, on every host the same.

    Arguments as of `plan_batches`. All hosts have to call it.

    Raises:
        DataStalledError: no header came in time.
        InputError: the hosts see different images.
    """
    measured = None
    require_same_images(source)
    if jax.process_count() > 1 and test_mode == "rect":
        measured = measure_together(
            source,
            np.arange(len(source)),
            test_size=test_size,
            smallest_side=smallest_side,
            timeout_s=timeout_s,
        )
    return plan_batches(
        source,
        test_size=test_size,
        test_mode=test_mode,
        batch_size=batch_size,
        smallest_side=smallest_side,
        timeout_s=timeout_s,
        measured=measured,
    )


def measure_together(
    source: ImageSource,
    indices: Sequence[int] | np.ndarray,
    *,
    test_size: int,
    smallest_side: int,
    timeout_s: float,
) -> np.ndarray:
    """`measured_sizes`, for which each host reads the headers of its share."""
    chosen = np.asarray(indices)
    own = measured_sizes(
        source,
        chosen[host_rows(len(chosen))],
        test_size=test_size,
        smallest_side=smallest_side,
        timeout_s=timeout_s,
    )
    return gather_rows(own, count=len(chosen))


def own_rows(plan: EvalPlan) -> EvalPlan:
    """The plan with this host's contiguous share of every batch."""
    (share,) = host_slices(plan.rows.shape[1], microbatches=1)
    return replace(plan, rows=plan.rows[:, share])


def widened(plan: EvalPlan, *, multiple: int) -> EvalPlan:
    """The plan with padding in every batch, up to a multiple of so many rows."""
    missing = -plan.rows.shape[1] % multiple
    return replace(
        plan, rows=np.pad(plan.rows, ((0, 0), (0, missing)), constant_values=-1)
    )


def require_same_images(source: ImageSource) -> None:
    """Compare what the hosts see; all have to call it.

    Raises:
        InputError: on all hosts, where two of them see different images.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256()
    for index in range(len(source)):
        name = f"{source.describe(index)}\0{source.labels[index]}\n"
        digest.update(name.encode(errors="surrogateescape"))
    require_same(len(source), digest.digest(), what="images", beside="names or labels")


def require_same(count: int, digest: bytes, *, what: str, beside: str) -> None:
    """Compare what the hosts see of something; all have to call it.

    Args:
        count: how many this host sees.
        digest: of these.
        what: they are, in the plural, for an error.
        beside: what else may differ, where the numbers are the same.

    Raises:
        InputError: on all hosts, where two of them differ.
    """
    own = np.array([count, int.from_bytes(digest[:7])], np.int64)
    seen = gather_shares(own)
    others = np.flatnonzero((seen != seen[0]).any(axis=1))
    if len(others):
        other = int(others[0])
        raise InputError(
            f"the hosts see different {what}: process 0 {seen[0, 0]}, process {other} "
            f"{seen[other, 0]}"
            + (f", with other {beside}" if seen[0, 0] == seen[other, 0] else "")
            + "; expected the same files at the same paths on all hosts: see "
            "docs/scaling.md"
        )
