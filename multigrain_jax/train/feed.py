"""Training batches on the devices."""

import contextlib
from collections.abc import Callable, Generator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from multigrain_jax.data.notes import NoteLog
from multigrain_jax.data.reading import HostBatch
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.distributed import gather_shares, host_slices
from multigrain_jax.mesh import put_batch
from multigrain_jax.train.sample_log import SampleLog

# (first_step, num_steps, batch_slice) -> this host's share of those batches
MakeShare = Callable[[int, int, slice], Generator[HostBatch]]


def train_batches(
    make_share: MakeShare,
    *,
    batch_size: int,
    microbatches: int,
    first_step: int,
    last_step: int,
    skips: SkipLog,
    notes: NoteLog,
    sample_log: SampleLog | None,
    mesh: Mesh,
) -> Generator[dict[str, jax.Array]]:
    """Training batches from `first_step` on, on the devices.

    Args:
        make_share: makes a contiguous part of every batch, as `make_train_batches`.
        batch_size: samples of a microbatch.
        microbatches: how many of them an update has; with more than one, every array
            has a leading axis of that length.
        first_step: the first update to feed.
        last_step: the one after the last.
        skips: is told of unreadable images.
        notes: is told of images that there is something to say of.
        sample_log: is told of all samples; None: nobody wants to know.
        mesh: the devices.
    """
    shares = [
        make_share(first_step, last_step - first_step, share)
        for share in host_slices(batch_size, microbatches=microbatches)
    ]
    with contextlib.ExitStack() as stack:
        if sample_log is not None:
            stack.callback(sample_log.close)
        for share in shares:
            stack.enter_context(contextlib.closing(share))
        for step, parts in enumerate(zip(*shares, strict=True), start=first_step + 1):
            batch = parts[0] if len(parts) == 1 else _concatenated(parts)
            skips.record(batch["bad_index"])
            notes.record(batch["noted_index"])
            if sample_log is not None:
                order = _whole_order(batch["image_index"], microbatches)
                sample_log.write(step, order)
            arrays = {name: batch[name] for name in ("image", "label", "instance_id")}
            if microbatches > 1:
                arrays = {
                    name: np.reshape(a, (microbatches, -1, *a.shape[1:]))
                    for name, a in arrays.items()
                }
            yield put_batch(mesh, arrays, axis=1 if microbatches > 1 else 0)


def _concatenated(parts: Sequence[HostBatch]) -> HostBatch:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _whole_order(share: np.ndarray, microbatches: int) -> np.ndarray:
    """All hosts' samples in the order of the step: microbatch by microbatch."""
    shares = gather_shares(share.reshape(microbatches, -1))
    return np.moveaxis(shares, 0, 1).reshape(-1)
