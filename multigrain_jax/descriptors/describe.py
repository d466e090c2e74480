"""From images to descriptors that fit a descriptor folder."""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.checkpoint import Checkpoint
from multigrain_jax.data.eval_batches import (
    EvalPlan,
    at_other_size,
    make_eval_batches,
    plan_batches,
)
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.descriptors.folder import DescriptorSettings, ImageStamp
from multigrain_jax.distributed import own_folder
from multigrain_jax.evaluation.embed import EmbeddedBatch, embed_batches
from multigrain_jax.evaluation.engine_step import embed_step_of
from multigrain_jax.evaluation.inputs import recorded_batches
from multigrain_jax.evaluation.sharing import own_rows, plan_together
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.heads import HEAD_KEY
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.ops.refinement import merge_scales
from multigrain_jax.runtime import images_at_once
from multigrain_jax.trees import json_digest, leaf_digests


def settings_of_model(
    opened: OpenedModel,
    *,
    dtype: str,
    test_size: int | Sequence[int],
    test_mode: str,
) -> DescriptorSettings:
    """What the descriptors of a model have in common.

    Args:
        opened: the model.
        dtype: in which they are stored.
        test_size: S, in pixels; of several, in any order, the largest is S.
        test_mode: "square" or "rect".
    """
    sizes = (test_size,) if isinstance(test_size, int) else tuple(sorted(test_size))
    return DescriptorSettings(
        dim=opened.descriptor_dim,
        dtype=dtype,
        model_digest=model_digest(opened.checkpoint),
        backbone=opened.name,
        pooling_exponent=opened.pooling_exponent,
        test_size=sizes[-1],
        test_mode=test_mode,
        whitened=bool(opened.variables.whitening),
        test_sizes=sizes if len(sizes) > 1 else (),
    )


def model_digest(checkpoint: Checkpoint) -> str:
    """Of the arrays, and of another network's head also of what it does with them.

    What `DescriptorSettings.model_digest` holds.
    """
    arrays = leaf_digests(checkpoint.model)
    if HEAD_KEY not in checkpoint.meta:
        return json_digest(arrays)
    return json_digest({"arrays": arrays, HEAD_KEY: checkpoint.meta[HEAD_KEY]})


def plan_descriptors(
    source: ImageSource,
    settings: DescriptorSettings,
    *,
    batch_size: int,
    timeout_s: float,
    indices: np.ndarray | None = None,
) -> EvalPlan:
    """The batches in which images are embedded.

    Args:
        source: the images.
        settings: how their descriptors are made.
        batch_size: images per batch; a CPU takes fewer large ones.
        timeout_s: how long to wait for a header.
        indices: which images; None is all.
    """
    return plan_batches(
        source,
        test_size=settings.test_size,
        test_mode=settings.test_mode,
        batch_size=images_at_once(batch_size, settings.test_size),
        indices=indices,
        smallest_side=BACKBONES[settings.backbone].smallest_side,
        timeout_s=timeout_s,
    )


def plan_queries(
    source: ImageSource,
    settings: DescriptorSettings,
    *,
    batch_size: int,
    timeout_s: float,
) -> EvalPlan:
    """`plan_descriptors` of all images, of whose headers each host reads its share.

    Arguments as of `plan_descriptors`. All hosts have to call it.
    """
    return plan_together(
        source,
        test_size=settings.test_size,
        test_mode=settings.test_mode,
        batch_size=images_at_once(batch_size, settings.test_size),
        smallest_side=BACKBONES[settings.backbone].smallest_side,
        timeout_s=timeout_s,
    )


def embed_plan(
    opened: OpenedModel,
    source: ImageSource,
    plan: EvalPlan,
    *,
    sizes: Sequence[int] = (),
    reading: Reading,
    workdir: Path,
) -> Generator[EmbeddedBatch]:
    """The descriptors of every batch of a plan; bad files go to skipped.txt.

    Of several hosts each reads its share of every batch, and all get all descriptors.

    Args:
        opened: the model.
        source: the images.
        plan: from `plan_descriptors`.
        sizes: at which to embed every image, that of the plan among them: the
            embeddings are averaged, and made of unit length. Empty: the plan's alone.
        reading: how batches are read ahead, for each size.
        workdir: the run's folder.
    """
    first = _embed_at(opened, source, plan, reading=reading, workdir=workdir)
    others = []
    for size in sizes:
        if size != plan.test_size:
            other = at_other_size(plan, test_size=size)
            # What cannot be read is told of once.
            others.append(
                _embed_at(opened, source, other, reading=reading, workdir=None)
            )
    return _merged([first, *others]) if others else first


def _merged(sizes: Sequence[Generator[EmbeddedBatch]]) -> Generator[EmbeddedBatch]:
    """Batches of the same images at several sizes as one; bad where any of them is."""
    with contextlib.ExitStack() as stack:
        for batches in sizes:
            stack.enter_context(contextlib.closing(batches))
        for parts in zip(*sizes, strict=True):
            embeddings = [np.asarray(part.embedding, np.float32) for part in parts]
            bad = np.any([part.bad for part in parts], axis=0)
            yield parts[0]._replace(descriptors=merge_scales(embeddings), bad=bad)


def _embed_at(
    opened: OpenedModel,
    source: ImageSource,
    plan: EvalPlan,
    *,
    reading: Reading,
    workdir: Path | None,
) -> Generator[EmbeddedBatch]:
    mesh = make_mesh()
    step = embed_step_of(
        opened.engine, opened.graphdef, backbone=opened.backbone, mesh=mesh
    )
    if workdir is None:
        batches = make_eval_batches(source, own_rows(plan), reading=reading)
    else:
        folder = own_folder(workdir)
        batches = recorded_batches(source, plan, workdir=folder, reading=reading)
    variables = put_replicated(mesh, opened.variables)
    return embed_batches(step, variables, batches, mesh=mesh)


def stamp_images(source: ImageSource) -> list[ImageStamp]:
    """Path, size and time of every image; zeros for what is no file of its own."""
    stamps = []
    for index in range(len(source)):
        size, version = source.stamp(index) or (0, 0)
        stamps.append(ImageStamp(source.describe(index), size, version))
    return stamps
