"""Training batches on the devices."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from multigrain_jax.data.reading import Batch
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.sources.tfrecord import TfrecordSource
from multigrain_jax.data.tfrecord_batches import make_tfrecord_batches
from multigrain_jax.data.train_batches import make_train_batches
from multigrain_jax.distributed import gather_shares, host_slices
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.inputs import reading_from_config
from multigrain_jax.mesh import put_batch
from multigrain_jax.train.sample_log import SampleLog


def train_batches(
    config: Mapping[str, Any],
    source: ImageSource,
    stream: RepeatedStream,
    *,
    mesh: Mesh,
    workdir: Path,
    first_step: int,
    last_step: int,
) -> Generator[dict[str, jax.Array]]:
    """Training batches from `first_step` on, on the devices.

    Unreadable images are listed in the workdir's skipped.txt, and with
    `log_sample_ids` all samples in sample_ids.jsonl.

    Args:
        config: the configuration as nested dictionaries.
        source: the images.
        stream: which image stands where.
        mesh: the devices.
        workdir: the run's folder.
        first_step: the first update to feed.
        last_step: the one after the last.
    """
    accumulation = config["gradient_accumulation_steps"]
    by_tfdata = config["data"]["backend"] == "tfdata"
    make = _tfrecord_batches if by_tfdata else _grain_batches
    shares = [
        make(
            config,
            source,
            stream,
            first_step=first_step,
            num_steps=last_step - first_step,
            batch_slice=share,
        )
        for share in host_slices(config["batch_size"], microbatches=accumulation)
    ]
    skips = SkipLog(
        source,
        workdir=None if config["dry_run"] else workdir,
        max_fraction=config["max_skipped_fraction"],
    )
    log = None
    if config["log_sample_ids"] and not config["dry_run"]:
        log = SampleLog(workdir, first_step=first_step)
    with contextlib.ExitStack() as stack:
        for share in shares:
            stack.enter_context(contextlib.closing(share))
        for step, parts in enumerate(zip(*shares, strict=True), start=first_step + 1):
            batch = parts[0] if len(parts) == 1 else _concatenated(parts)
            skips.record(batch["bad_index"])
            if log is not None:
                log.write(step, _whole_order(batch["instance_id"], accumulation))
            arrays = {name: batch[name] for name in ("image", "label", "instance_id")}
            if accumulation > 1:
                arrays = {
                    name: np.reshape(a, (accumulation, -1, *a.shape[1:]))
                    for name, a in arrays.items()
                }
            yield put_batch(mesh, arrays, axis=1 if accumulation > 1 else 0)


def _concatenated(parts: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _whole_order(share: np.ndarray, microbatches: int) -> np.ndarray:
    """All hosts' samples in the order of the step: microbatch by microbatch."""
    shares = gather_shares(share.reshape(microbatches, -1))
    return np.moveaxis(shares, 0, 1).reshape(-1)


def _grain_batches(
    config: Mapping[str, Any],
    source: ImageSource,
    stream: RepeatedStream,
    *,
    first_step: int,
    num_steps: int,
    batch_slice: slice,
) -> Generator[Batch]:
    return make_train_batches(
        source,
        stream,
        train_size=config["train_size"],
        augmentation=config["augmentation"],
        crop_area_min=config["crop_area_min"],
        crop_resize=config["crop_resize"],
        seed=config["seed"],
        first_step=first_step,
        num_steps=num_steps,
        batch_slice=batch_slice,
        reading=reading_from_config(config),
    )


def _tfrecord_batches(
    config: Mapping[str, Any],
    source: ImageSource,
    stream: RepeatedStream,
    *,
    first_step: int,
    num_steps: int,
    batch_slice: slice,
) -> Generator[Batch]:
    if not isinstance(source, TfrecordSource):
        raise InputError(
            'data.backend = "tfdata" reads whole splits that TFDS prepared as TFRecord '
            f"files; {config['data']['root']} is not one, or data.num_images takes a "
            'part of it: set data.backend to "grain"'
        )
    return make_tfrecord_batches(
        source,
        num_repeats=stream.num_repeats,
        batch_size=stream.batch_size,
        train_size=config["train_size"],
        crop_area_min=config["crop_area_min"],
        seed=config["seed"],
        first_step=first_step,
        num_steps=num_steps,
        batch_slice=batch_slice,
        prefetch=config["prefetch_batches"],
    )
