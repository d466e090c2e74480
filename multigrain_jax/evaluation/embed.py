"""Embeddings and logits of whole image sets."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.data.eval_batches import make_eval_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.inputs import features_of_uint8, network_inputs
from multigrain_jax.evaluation.running import run_in_order
from multigrain_jax.evaluation.sharing import own_rows, plan_together
from multigrain_jax.mesh import batch_sharding, put_batch, replicated
from multigrain_jax.models.multigrain import Backbone, Output, Variables, merge_model
from multigrain_jax.runtime import compiler_options, images_at_once

# What comes back from the devices beside the outputs: each host knows it of the rows
# that it read, and all of them need it of all rows.
FACTS = ("index", "mask", "label", "bad")

EmbedStep = Callable[
    [Variables, dict[str, jax.Array]], tuple[Output, dict[str, jax.Array]]
]


class Embedded(NamedTuple):
    """What a model makes of N images, in the order of the data set.

    Attributes:
        descriptors: float32 [N, D], of unit length.
        logits: float32 [N, classes]; None of a model without a classifier.
        labels: int32 [N].
        bad: bool [N], images that could not be read; their rows mean nothing.
    """

    descriptors: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray
    bad: np.ndarray


def make_embed_step(
    graphdef: nnx.GraphDef,
    *,
    backbone: Backbone,
    mesh: Mesh,
) -> EmbedStep:
    """Compile `(variables, batch) -> (Output, facts)`, whole on every device.

    `batch` has `image` uint8 [B, H, W, 3], in the "rect" mode `size` int32 [B, 2], and
    `FACTS`, which are returned as they are.

    Args:
        graphdef: the model's evaluation structure.
        backbone: the model's row of `BACKBONES`, for its input statistics.
        mesh: the devices; the batch is split over them.
    """

    def step(
        variables: Variables, batch: dict[str, jax.Array]
    ) -> tuple[Output, dict[str, jax.Array]]:
        model = merge_model(graphdef, variables)
        output = model.head(features_of_uint8(model, batch, backbone=backbone))
        return output, {name: batch[name] for name in FACTS}

    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, batch_sharding(mesh)),
        out_shardings=whole,
        compiler_options=compiler_options(backbone),
    )


class EmbeddedBatch(NamedTuple):
    """What a model makes of the n images of one batch, padding left out.

    Attributes:
        indices: int32 [n], the images' numbers in their source.
        embedding: [n, D]; rows of unreadable images mean nothing, here and below.
        descriptors: [n, D], the embedding of unit length.
        logits: [n, classes]; None of a model without a classifier.
        labels: int32 [n].
        bad: bool [n], images that could not be read.
    """

    indices: np.ndarray
    embedding: np.ndarray
    descriptors: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray
    bad: np.ndarray


def embed_batches(
    embed_step: EmbedStep,
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
) -> Generator[EmbeddedBatch]:
    """The outputs of every batch, one after the other; on all hosts those of all rows.

    Args:
        embed_step: from `make_embed_step`.
        variables: the model's arrays.
        batches: as `make_eval_batches` yields them, of this host's rows (`own_rows`).
        mesh: the devices.
    """
    inputs = ({**network_inputs(b), "index": b["index"]} for b in batches)

    def step(batch: Mapping[str, np.ndarray]) -> tuple[Output, dict[str, jax.Array]]:
        return embed_step(variables, put_batch(mesh, batch))

    for output, facts in run_in_order(step, inputs):
        mask = facts["mask"]
        logits = output.logits
        yield EmbeddedBatch(
            indices=np.asarray(facts["index"])[mask],
            embedding=np.asarray(output.embedding)[mask],
            descriptors=np.asarray(output.normalized_embedding)[mask],
            logits=None if logits is None else np.asarray(logits)[mask],
            labels=np.asarray(facts["label"])[mask],
            bad=np.asarray(facts["bad"])[mask],
        )


def embed_all(
    embed_step: EmbedStep,
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
) -> Embedded:
    """Descriptors and logits of every image of the batches, in the source's order."""
    return _whole(embed_batches(embed_step, variables, batches, mesh=mesh))


def _whole(batches: Iterable[EmbeddedBatch]) -> Embedded:
    """The images of all batches in the order of their source."""
    indices, parts = [], deque[Embedded]()
    for part in batches:
        indices.append(part.indices)
        parts.append(Embedded(part.descriptors, part.logits, part.labels, part.bad))
    return _in_order(np.concatenate(indices), parts)


def _in_order(indices: np.ndarray, parts: deque[Embedded]) -> Embedded:
    """All parts as one, in the order of the images' indices [N]; `parts` is emptied."""
    count, first = len(indices), parts[0]
    places = np.empty(count, np.int64)
    places[np.argsort(indices, kind="stable")] = np.arange(count)
    whole = Embedded(
        np.empty((count, first.descriptors.shape[1]), np.float32),
        None
        if first.logits is None
        else np.empty((count, first.logits.shape[1]), np.float32),
        np.empty(count, first.labels.dtype),
        np.empty(count, bool),
    )
    while parts:
        # Each is let go when it is copied: with many classes, logits are large.
        part = parts.popleft()
        rows, places = places[: len(part.bad)], places[len(part.bad) :]
        for target, values in zip(whole, part, strict=True):
            if target is not None:
                target[rows] = values
    # An unreadable image is like no other: its similarity to all is 0.
    whole.descriptors[whole.bad] = 0
    return whole


def embed_source(
    source: ImageSource,
    *,
    embed_step: EmbedStep,
    variables: Variables,
    backbone: Backbone,
    test_size: int,
    test_mode: str,
    batch_size: int,
    reading: Reading,
    mesh: Mesh,
) -> Embedded:
    """Descriptors and logits of every image of a source, which fit into memory.

    Arguments as of `embed_source_batches`.
    """
    return _whole(
        embed_source_batches(
            source,
            embed_step=embed_step,
            variables=variables,
            backbone=backbone,
            test_size=test_size,
            test_mode=test_mode,
            batch_size=batch_size,
            reading=reading,
            mesh=mesh,
        )
    )


def embed_source_batches(
    source: ImageSource,
    *,
    embed_step: EmbedStep,
    variables: Variables,
    backbone: Backbone,
    test_size: int,
    test_mode: str,
    batch_size: int,
    reading: Reading,
    mesh: Mesh,
) -> Generator[EmbeddedBatch]:
    """The outputs of every batch of a source, one after the other.

    Args:
        source: the images.
        embed_step: from `make_embed_step`.
        variables: the model's arrays.
        backbone: the model's row of `BACKBONES`.
        test_size: S, in pixels.
        test_mode: "square" or "rect", as `plan_batches` has them.
        batch_size: images per step; a CPU takes fewer large ones.
        reading: how batches are read ahead.
        mesh: the devices.
    """
    plan = plan_together(
        source,
        test_size=test_size,
        test_mode=test_mode,
        batch_size=images_at_once(batch_size, test_size),
        smallest_side=backbone.smallest_side,
        timeout_s=reading.timeout_s,
    )
    batches = make_eval_batches(source, own_rows(plan), reading=reading)
    yield from embed_batches(embed_step, variables, batches, mesh=mesh)
