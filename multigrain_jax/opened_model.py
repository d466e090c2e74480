"""From a checkpoint to a model: its structure and its arrays."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.checkpoint import Checkpoint, load_checkpoint
from multigrain_jax.engines.sessions import JAX
from multigrain_jax.errors import InputError
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.heads import (
    HEAD_KEY,
    PLAIN_HEAD,
    DescriptorHead,
    head_from_json,
    whitening_head,
)
from multigrain_jax.models.multigrain import (
    BACKBONES,
    Backbone,
    Variables,
    abstract_model,
    split_model,
    variables_of,
)
from multigrain_jax.trees import nested_to_tree
from multigrain_jax.weights import find_weights


class OpenedModel(NamedTuple):
    """A model in evaluation mode: its structure, its arrays, and what they are.

    Attributes:
        graphdef: the structure; `merge_model(graphdef, variables)` is the model.
        variables: the weights, as plain arrays.
        name: of its backbone, a key of `BACKBONES`.
        backbone: the row of that name.
        num_classes: rows of the classifier, 0 where there is none.
        pooling_exponent: p of the GeM pooling in use.
        descriptor_dim: D, what search compares.
        class_names: names of the classes, if the checkpoint has them.
        checkpoint: what was read.
        engine: what is to compute it, a name of `ENGINES`.
    """

    graphdef: nnx.GraphDef
    variables: Variables
    name: str
    backbone: Backbone
    num_classes: int
    pooling_exponent: float
    descriptor_dim: int
    class_names: list[str]
    checkpoint: Checkpoint
    engine: str = JAX

    def for_inference(self, engine: str = JAX) -> "OpenedModel":
        """The same with batch norms folded: faster, and never to be trained or kept.

        Args:
            engine: what is to compute it, a name of `ENGINES`.
        """
        graphdef, variables = fold_batch_norms(self.graphdef, self.variables)
        return self._replace(graphdef=graphdef, variables=variables, engine=engine)


def open_model(
    path: str | Path,
    *,
    step: int | None = None,
    raw: bool = False,
    pooling_exponent: float | Literal["inf"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> OpenedModel:
    """A checkpoint as the structure and the arrays of a model.

    Args:
        path: a workdir or a step folder, or one of `weights.names()`.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step also where there is their running average.
        pooling_exponent: p of the GeM pooling, as of `checked_exponent`; None is the
            checkpoint's.
        dtype: compute dtype.

    Raises:
        InputError: no such checkpoint, a damaged one, one of another model, or
            another p.
    """
    return open_checkpoint(
        load_checkpoint(find_weights(path), step=step, raw=raw),
        pooling_exponent=pooling_exponent,
        dtype=dtype,
    )


def open_checkpoint(
    checkpoint: Checkpoint,
    *,
    pooling_exponent: float | Literal["inf"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> OpenedModel:
    """What was read of a checkpoint as the structure and the arrays of a model.

    Args:
        checkpoint: what was read.
        pooling_exponent: p of the GeM pooling, as of `checked_exponent`; None is the
            checkpoint's.
        dtype: compute dtype.

    Raises:
        InputError: weights that do not fit the backbone, or another p.
    """
    if pooling_exponent is not None:
        pooling_exponent = checked_exponent(pooling_exponent)
    variables = variables_of(checkpoint.model)
    name, num_classes = checkpoint.meta["backbone"], checkpoint.meta["num_classes"]
    if pooling_exponent is None:
        pooling_exponent = float(variables.pooling_exponent)
    head = _head_of(checkpoint.meta, variables)
    model = abstract_model(
        name,
        num_classes=num_classes,
        pooling_exponent=pooling_exponent,
        dtype=dtype,
        head=head,
    )
    model.eval()
    graphdef, expected = split_model(model)
    fitted = nested_to_tree(
        variables._asdict(), like=expected._asdict(), name=f"{checkpoint.path}/model"
    )
    fitted["pooling_exponent"] = np.asarray(
        pooling_exponent, expected.pooling_exponent.dtype
    )
    return OpenedModel(
        graphdef=graphdef,
        variables=Variables(**fitted),
        name=name,
        backbone=BACKBONES[name],
        num_classes=num_classes,
        pooling_exponent=pooling_exponent,
        descriptor_dim=_descriptor_dim(variables, BACKBONES[name]),
        class_names=list(checkpoint.meta["class_names"]),
        checkpoint=checkpoint,
    )


def checked_exponent(found: Any) -> float:
    """An exponent p of GeM pooling, as a number.

    Args:
        found: more than 0; infinity, as a word too ("inf"), is the largest value.

    Raises:
        InputError: something else.
    """
    try:
        exponent = math.nan if isinstance(found, bool) else float(found)
    except (OverflowError, TypeError, ValueError):
        exponent = math.nan
    if not exponent > 0:
        raise InputError(
            f"pooling_exponent: found {found!r}, expected a number above 0, or "
            '"inf"; None is the checkpoint\'s'
        )
    return exponent


def _head_of(meta: Mapping[str, Any], variables: Variables) -> DescriptorHead:
    if HEAD_KEY in meta:
        return head_from_json(meta[HEAD_KEY])
    if variables.whitening:
        return whitening_head(variables.whitening["projection"].shape[1])
    return PLAIN_HEAD


def _descriptor_dim(variables: Variables, backbone: Backbone) -> int:
    if variables.whitening:
        return variables.whitening["projection"].shape[1]
    if variables.head:
        return variables.head[str(len(variables.head) - 1)]["projection"].shape[1]
    return backbone.embedding_dim


def names_of_logits(opened: OpenedModel) -> list[str]:
    """A name for each logit of a model; none where its checkpoint has none.

    A classifier may have more rows than its images had classes.
    """
    names = opened.class_names
    unnamed = range(len(names), opened.num_classes if names else 0)
    return [*names, *(f"class {number}, unnamed" for number in unnamed)]
