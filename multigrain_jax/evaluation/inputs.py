"""From a set of images to the trunk's output, as all evaluation tasks do it."""

import contextlib
import math
from collections.abc import Generator, Mapping
from pathlib import Path

import jax
import numpy as np

from multigrain_jax.data.eval_batches import EvalPlan, make_eval_batches
from multigrain_jax.data.notes import NoteLog
from multigrain_jax.data.reading import HostBatch, Reading
from multigrain_jax.data.skips import SKIPPED_FILE, SkipLog
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import folders_of_others
from multigrain_jax.evaluation.sharing import own_rows
from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import Backbone, MultiGrain
from multigrain_jax.ops.color import normalize_pixels
from multigrain_jax.progress import Progress

# What the devices need of a batch; `index` stays on the host.
NETWORK_INPUTS = ("image", "size", "label", "mask", "bad")


def network_inputs(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of an evaluation batch that go to the devices."""
    return {name: batch[name] for name in NETWORK_INPUTS if name in batch}


def features_of_uint8(
    model: MultiGrain, batch: Mapping[str, jax.Array], *, backbone: Backbone
) -> FeatureMap:
    """The trunk's output for images as they come from the host.

    Args:
        model: in evaluation mode.
        batch: `image` uint8 [B, H, W, 3] and, where images are smaller than their
            canvas, `size` int32 [B, 2].
        backbone: its row of `BACKBONES`, for the input statistics.
    """
    normalized = normalize_pixels(batch["image"], backbone.mean, backbone.std)
    return model.features(normalized, batch.get("size"))


def recorded_batches(
    source: ImageSource,
    plan: EvalPlan,
    *,
    workdir: Path | None,
    reading: Reading,
) -> Generator[HostBatch]:
    """This host's rows of a plan's batches; its remarks are in skipped.txt, notes.txt.

    Nothing stands in for unreadable images: they are marked bad and count as wrong. One
    that any host has listed is not listed again. A terminal shows the progress.

    Args:
        source: the images.
        plan: from `plan_batches`, the same on all hosts.
        workdir: where this process keeps its records; None writes nothing.
        reading: how batches are read ahead.
    """
    others = [] if workdir is None else folders_of_others(workdir)
    skips = SkipLog(
        source,
        workdir=workdir,
        max_fraction=math.inf,
        other_lists=[folder / SKIPPED_FILE for folder in others],
    )
    notes = NoteLog(source, workdir=workdir)
    own_plan = own_rows(plan)
    batches = make_eval_batches(source, own_plan, reading=reading)
    progress = Progress(
        int(np.sum(own_plan.rows >= 0)),
        what="photos",
        is_shown=jax.process_index() == 0,
    )
    with contextlib.closing(batches), contextlib.closing(progress):
        for batch in batches:
            progress.add(int(np.sum(batch["index"] >= 0)))
            skips.record(batch["index"][batch["bad"]])
            notes.record(batch["index"][batch["noted"]])
            yield batch
