"""Accuracy and cross-entropy of a classifier over a labelled set."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.mesh import batch_sharding, put_batch, replicated
from multigrain_jax.models.multigrain import Output, Variables, merge_model
from multigrain_jax.ops.color import normalize
from multigrain_jax.ops.ranking import top_k_correct

TOP_KS = (1, 5)
EvalStep = Callable[[Variables, dict[str, jax.Array]], dict[str, jax.Array]]


def forward_uint8(
    graphdef: nnx.GraphDef,
    variables: Variables,
    images: jax.Array,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Output:
    """The model's output for images as they come from the host.

    Args:
        graphdef: the model's evaluation structure.
        variables: its arrays.
        images: [B, S, S, 3] uint8.
        mean: the backbone's input mean, of values in [0, 1].
        std: the backbone's input standard deviation.
    """
    model = merge_model(graphdef, variables)
    scaled = images.astype(jnp.float32) / 255.0
    return model(normalize(scaled, mean, std))


def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mesh: Mesh,
) -> EvalStep:
    """Compile `(variables, batch) -> sums` over the batch's samples that count.

    `batch` has `image` uint8 [B, S, S, 3], `label` int32 [B], `mask` bool [B] (False:
    padding of the last batch) and `bad` bool [B] (unreadable: counted as wrong). The
    sums are `count`, `top1`, `top5` and `cross_entropy` (of readable samples only).
    """

    def step(variables: Variables, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        output = forward_uint8(graphdef, variables, batch["image"], mean=mean, std=std)
        readable = batch["mask"] & ~batch["bad"]
        # A set without labels (-1) is counted, with nothing right.
        label = jnp.maximum(batch["label"], 0)
        log_probs = jax.nn.log_softmax(output.logits, axis=-1)
        loss = -jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]
        sums = {
            "count": jnp.sum(batch["mask"]),
            "cross_entropy": jnp.sum(jnp.where(readable, loss, 0.0)),
            "readable": jnp.sum(readable),
        }
        for k in TOP_KS:
            k_possible = min(k, output.logits.shape[-1])
            correct = top_k_correct(output.logits, batch["label"], k_possible)
            sums[f"top{k}"] = jnp.sum(correct & readable)
        return sums

    whole = replicated(mesh)
    return jax.jit(
        step, in_shardings=(whole, batch_sharding(mesh)), out_shardings=whole
    )


def evaluate_classification(
    eval_step: EvalStep,
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
) -> dict[str, float]:
    """Top-1, top-5 (fractions) and mean cross-entropy over all batches.

    Args:
        eval_step: from `make_eval_step`.
        variables: the model's arrays.
        batches: evaluation batches of the data pipeline.
        mesh: the devices.

    Returns:
        `top1`, `top5`, `cross_entropy`. Unreadable images count as wrong, and are left
        out of the cross-entropy.
    """
    totals: list[dict[str, jax.Array]] = []
    for batch in batches:
        wanted = {name: batch[name] for name in ("image", "label", "mask", "bad")}
        totals.append(eval_step(variables, put_batch(mesh, wanted)))
    sums: dict[str, Any] = {}
    for total in jax.device_get(totals):
        for name, value in total.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    count = max(1.0, sums.get("count", 0.0))
    return {
        **{f"top{k}": sums.get(f"top{k}", 0.0) / count for k in TOP_KS},
        "cross_entropy": sums.get("cross_entropy", 0.0)
        / max(1.0, sums.get("readable", 0.0)),
    }
