"""Accuracy and cross-entropy of a classifier over a labelled set."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import Embedded
from multigrain_jax.evaluation.inputs import features_of_uint8, network_inputs
from multigrain_jax.evaluation.running import run_in_order
from multigrain_jax.mesh import batch_sharding, put_batch, replicated
from multigrain_jax.models.multigrain import (
    Backbone,
    MultiGrain,
    Variables,
    class_logits,
    merge_model,
)
from multigrain_jax.ops.ranking import average_precisions, label_ranks, top_k_correct
from multigrain_jax.runtime import compiler_options

TOP_KS = (1, 5)
COUNTS = ("count", "readable")
KNN_BLOCK = 1024  # photos that look for their nearest at once
RANKED_BYTES = 32 << 20  # of similarities or logits that are ranked at once
Weights = TypeVar("Weights")
EvalStep = Callable[[Variables, dict[str, jax.Array]], dict[str, jax.Array]]


def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    backbone: Backbone,
    mesh: Mesh,
    exponents: Sequence[float | None] = (None,),
) -> EvalStep:
    """Compile `(variables, batch) -> sums` over the batch's samples that count.

    `batch` has `image` uint8 [B, H, W, 3], `label` int32 [B], `mask` bool [B] (False:
    padding of the last batch), `bad` bool [B] (unreadable: counted as wrong), and in
    the "rect" mode `size` int32 [B, 2]. The sums are `count` and `readable`, and for
    each exponent `top1`, `top5` and `cross_entropy` (of readable samples only), [P].

    Args:
        graphdef: the model's evaluation structure.
        backbone: the model's row of `BACKBONES`, for its input statistics.
        mesh: the devices; the batch is split over them.
        exponents: P values of the pooling's p, for which the trunk runs once; None is
            the model's own.
    """

    def step(variables: Variables, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        model = merge_model(graphdef, variables)
        logits = logits_of_exponents(model, batch, exponents, backbone=backbone)
        return class_sums(logits, batch)

    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, batch_sharding(mesh)),
        out_shardings=whole,
        compiler_options=compiler_options(backbone),
    )


def logits_of_exponents(
    model: MultiGrain,
    batch: Mapping[str, jax.Array],
    exponents: Sequence[float | None],
    *,
    backbone: Backbone,
) -> list[jax.Array]:
    """The logits [B, C] of each exponent; the trunk runs once.

    Args:
        model: in evaluation mode.
        batch: `image`, and `size` where images are smaller than their canvas.
        exponents: of the pooling, as of `make_eval_step`.
        backbone: the model's row of `BACKBONES`.
    """
    features = features_of_uint8(model, batch, backbone=backbone)
    outputs = [model.head(features, exponent=exponent) for exponent in exponents]
    return [class_logits(output.logits) for output in outputs]


def class_sums(
    logits: Sequence[jax.Array], batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """What `make_eval_step` gives of the logits [B, C] of each exponent."""
    readable = batch["mask"] & ~batch["bad"]
    # A set without labels (-1) is counted, with nothing right.
    label = jnp.maximum(batch["label"], 0)

    def scores(logits: jax.Array) -> dict[str, jax.Array]:
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        loss = -jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]
        sums = {"cross_entropy": jnp.sum(jnp.where(readable, loss, 0.0))}
        for k in TOP_KS:
            k_possible = min(k, logits.shape[-1])
            correct = top_k_correct(logits, batch["label"], k_possible)
            sums[f"top{k}"] = jnp.sum(correct & readable)
        return sums

    each = [scores(one) for one in logits]
    return {
        "count": jnp.sum(batch["mask"]),
        "readable": jnp.sum(readable),
        **{name: jnp.stack([one[name] for one in each]) for name in each[0]},
    }


def for_several(
    eval_step: EvalStep,
) -> Callable[[Sequence[Variables], dict[str, jax.Array]], dict[str, jax.Array]]:
    """A step for several sets of arrays on the same batch, as if they were exponents.

    Args:
        eval_step: from `make_eval_step`.
    """

    def step(
        several: Sequence[Variables], batch: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        first, *others = (eval_step(variables, batch) for variables in several)
        if not others:
            return first
        return {
            name: value
            if name in COUNTS
            else jnp.concatenate([value, *(other[name] for other in others)])
            for name, value in first.items()
        }

    return step


def evaluate_classification(
    eval_step: Callable[[Weights, dict[str, jax.Array]], dict[str, jax.Array]],
    variables: Weights,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mesh: Mesh,
) -> list[dict[str, float]]:
    """Top-1, top-5 (fractions) and mean cross-entropy over all batches.

    Args:
        eval_step: from `make_eval_step`, or `for_several` of that.
        variables: the model's arrays, or several.
        batches: as `make_eval_batches` yields them, of this host's rows (`own_rows`).
        mesh: the devices.

    Returns:
        `top1`, `top5`, `cross_entropy` for each of the step's exponents, of each of
        the variables where they are several. Unreadable
        images count as wrong, and are left out of the cross-entropy.
    """

    def step(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        return eval_step(variables, put_batch(mesh, batch))

    sums: dict[str, Any] = {}
    for total in run_in_order(step, map(network_inputs, batches)):
        for name, value in total.items():
            sums[name] = sums.get(name, 0.0) + np.asarray(value, np.float64)
    count, readable = (max(1.0, float(sums.pop(name, 0))) for name in COUNTS)
    divisors = {"cross_entropy": readable}
    means = {name: total / divisors.get(name, count) for name, total in sums.items()}
    num_exponents = len(next(iter(means.values()), ()))
    return [
        {name: float(values[i]) for name, values in means.items()}
        for i in range(num_exponents)
    ]


def knn_top1(photos: Embedded) -> float:
    """How often a photo's nearest other one is of its class: a probe of the embedding.

    Photos without a label are left out, and as queries those that are `alone_in_class`;
    unreadable ones count as wrong. Memory: a block of `KNN_BLOCK` rows of similarities.
    """
    labelled = photos.labels >= 0
    labels, descriptors = photos.labels[labelled], photos.descriptors[labelled]
    bad = photos.bad[labelled]
    queries = np.flatnonzero(~alone_in_class(labels))
    right = 0
    for start in range(0, len(queries), KNN_BLOCK):
        rows = queries[start : start + KNN_BLOCK]
        similarity = descriptors[rows] @ descriptors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        similarity[:, bad] = -np.inf
        nearest = labels[similarity.argmax(axis=1)]
        right += int(np.sum((nearest == labels[rows]) & ~bad[rows]))
    return right / max(1, len(queries))


def alone_in_class(labels: np.ndarray) -> np.ndarray:
    """Which photos have a label and no other one of it: nothing can be found for them.

    Args:
        labels: int32 [N]; -1 is unlabelled.

    Returns:
        bool [N].
    """
    counts = np.bincount(labels[labels >= 0], minlength=1)
    return (labels >= 0) & (counts[labels] == 1)


def classification_scores(photos: Embedded) -> dict[str, float]:
    """Top-1 and top-5 as fractions of the labelled photos; unreadable are wrong.

    So are labels that the classifier does not have. Memory: about twice `RANKED_BYTES`.
    """
    logits = class_logits(photos.logits)
    num_classes = logits.shape[1]
    known = (photos.labels >= 0) & (photos.labels < num_classes) & ~photos.bad
    top1 = top5 = 0
    for rows in _row_blocks(np.flatnonzero(known), num_classes):
        ranks = label_ranks(logits[rows], photos.labels[rows])
        top1 += int(np.count_nonzero(ranks < 1))
        top5 += int(np.count_nonzero(ranks < 5))
    count = max(1, int(np.count_nonzero(photos.labels >= 0)))
    return {"top1": top1 / count, "top5": top5 / count}


def class_map(photos: Embedded) -> float:
    """Mean average precision of finding a photo's class among the other photos.

    Photos without a label are left out, here and in `knn_top1`: nobody knows what they
    show; so are, as queries, those that are `alone_in_class`. Memory: at most four
    times `RANKED_BYTES`, or four rows of similarities.
    """
    labels, descriptors = photos.labels, photos.descriptors
    unlabelled = labels < 0
    scores: list[float] = []
    for rows in _row_blocks(np.flatnonzero(~unlabelled), len(labels)):
        ignored = np.repeat(unlabelled[None], len(rows), axis=0)
        ignored[np.arange(len(rows)), rows] = True  # itself
        scores += average_precisions(
            descriptors[rows] @ descriptors.T,
            labels[rows, None] == labels,
            ignored=ignored,
        )
    return float(np.mean(scores)) if scores else 0.0


def _row_blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Parts of the rows, for which [part, width] in float32 takes `RANKED_BYTES`."""
    size = max(1, RANKED_BYTES // (4 * max(1, width)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def require_classes(
    source: ImageSource,
    *,
    num_classes: int,
    class_names: Sequence[str],
    checkpoint: Path,
) -> None:
    """Check that a set is labelled with a classifier's classes.

    Args:
        source: the set, its labels numbered by `class_names` where there are any.
        num_classes: of the classifier.
        class_names: of the classifier; empty where its checkpoint has none.
        checkpoint: where the classifier is from, for the error.

    Raises:
        InputError: images without labels, or another number of classes.
    """
    unlabelled = int((source.labels < 0).sum())
    if unlabelled:
        raise InputError(
            f"{unlabelled} of {len(source)} images have no label; expected one folder "
            "per class and no images beside the folders"
        )
    # A class that the evaluated part does not have is no mistake.
    if len(source.class_names) > num_classes or (
        not class_names and len(source.class_names) != num_classes
    ):
        raise InputError(
            f"the images have {len(source.class_names)} classes, the classifier of "
            f"{checkpoint} has {num_classes}; expected the data set it was trained on"
        )
