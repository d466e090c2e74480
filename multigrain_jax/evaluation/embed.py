"""Embeddings and logits of whole image sets."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.evaluation.classification import forward_uint8
from multigrain_jax.mesh import batch_sharding, put_batch, replicated
from multigrain_jax.models.multigrain import Output, Variables

EmbedStep = Callable[[Variables, dict[str, jax.Array]], Output]


class Embedded(NamedTuple):
    """What a model makes of N images, in the order of the data set.

    Attributes:
        descriptors: float32 [N, D], of unit length.
        logits: float32 [N, classes].
        labels: int32 [N].
        bad: bool [N], images that could not be read; their rows mean nothing.
    """

    descriptors: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    bad: np.ndarray


def make_embed_step(
    graphdef: nnx.GraphDef,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mesh: Mesh,
) -> EmbedStep:
    """Compile `(variables, {"image": uint8 [B, S, S, 3]}) -> Output`.

    Args:
        graphdef: the model's evaluation structure.
        mean: the backbone's input mean.
        std: the backbone's input standard deviation.
        mesh: the devices; the batch is split over them.
    """

    def step(variables: Variables, batch: dict[str, jax.Array]) -> Output:
        return forward_uint8(graphdef, variables, batch["image"], mean=mean, std=std)

    whole = replicated(mesh)
    return jax.jit(
        step, in_shardings=(whole, batch_sharding(mesh)), out_shardings=whole
    )


def embed_all(
    embed_step: EmbedStep,
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
) -> Embedded:
    """Descriptors and logits of every image of the batches, padding left out."""
    outputs, masks, labels, bad = [], [], [], []
    for batch in batches:
        output = embed_step(variables, put_batch(mesh, {"image": batch["image"]}))
        outputs.append((output.normalized_embedding, output.logits))
        masks.append(batch["mask"])
        labels.append(batch["label"])
        bad.append(batch["bad"])
    mask = np.concatenate(masks)
    descriptors, logits = (
        np.concatenate(parts)[mask]
        for parts in zip(*jax.device_get(outputs), strict=True)
    )
    unreadable = np.concatenate(bad)[mask]
    return Embedded(
        # An unreadable image is like no other: its similarity to all is 0.
        np.where(unreadable[:, None], 0, np.asarray(descriptors, np.float32)),
        np.asarray(logits, np.float32),
        np.concatenate(labels)[mask],
        unreadable,
    )
