"""The MultiGrain network: trunk, GeM pooling, embedding, classifier.

Berman, Jégou, Vedaldi, Kokkinos and Douze, "MultiGrain: a unified image embedding for
classes and instances", 2019.
"""

import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import BACKBONES, Backbone, backbone_row
from multigrain_jax.models.heads import (
    NORMALIZATIONS,
    PLAIN_HEAD,
    DescriptorHead,
    HeadValue,
    ProjectionLayer,
    whitening_head,
)
from multigrain_jax.models.layers import FeatureMap, Linear, Rng, parameter_dtype
from multigrain_jax.models.variables import (
    Variables,
    merge_dicts,
    number_keys,
    string_keys,
    variables_of,
)
from multigrain_jax.ops.pooling import gem

__all__ = [
    "BACKBONES",
    "Backbone",
    "MultiGrain",
    "Output",
    "PoolingExponent",
    "Variables",
    "abstract_model",
    "class_logits",
    "create_model",
    "merge_model",
    "split_model",
    "variables_of",
]


Logits = TypeVar("Logits", jax.Array, np.ndarray)


class PoolingExponent(nnx.Variable):
    """The exponent p of GeM: neither a parameter that decays nor a statistic."""


class Output(NamedTuple):
    """What the network makes of B images.

    Attributes:
        embedding: [B, D], what the classifier reads; [B, K] after a whitening or
            another descriptor head.
        normalized_embedding: the same of unit length: what retrieval compares.
        logits: [B, classes]; None of a model without a classifier.
    """

    embedding: jax.Array
    normalized_embedding: jax.Array
    logits: jax.Array | None


def class_logits(logits: Logits | None) -> Logits:
    """The logits themselves; a ValueError for those of a model without a classifier."""
    if logits is None:
        raise ValueError(
            "logits are missing: a model with classes was expected, found one with "
            "num_classes = 0"
        )
    return logits


class MultiGrain(nnx.Module):
    """images -> trunk -> GeM -> embedding -> classifier."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        pooling_exponent: float,
        dtype: DTypeLike,
        batch_norm_group_size: int,
        head: DescriptorHead = PLAIN_HEAD,
        rng: Rng,
    ):
        """Creates the layers; arguments as of `create_model`."""
        if not pooling_exponent > 0:
            raise InputError(
                f"pooling_exponent: found {pooling_exponent}, expected a number above "
                "0 (1 is the mean, infinity the maximum)"
            )
        if num_classes < 0:
            raise InputError(
                f"num_classes: found {num_classes}, expected the number of classes, "
                "or 0 for a model without a classifier"
            )
        stored = parameter_dtype(dtype)
        self.trunk = backbone.make_trunk(
            group_size=batch_norm_group_size, dtype=dtype, rng=rng
        )
        self.pooling_exponent = PoolingExponent(jnp.asarray(pooling_exponent, stored))
        # The two limits are other programs, not other numbers.
        is_limit = pooling_exponent == 1 or math.isinf(pooling_exponent)
        self.constant_exponent = float(pooling_exponent) if is_limit else None
        self.dropout_rate = backbone.dropout_rate
        self.deterministic = False  # set by model.train() and model.eval()
        self.descriptor_head = head
        self.projections = nnx.List()
        dim = backbone.embedding_dim
        for row in head.projections:
            self.projections.append(ProjectionLayer(row, inputs=dim, dtype=stored))
            dim = self.projections[-1].num_components
        # A classifier cannot be folded into a projection that loses dimensions: it
        # goes on reading what comes before it.
        self.reads_whitened = head.is_whitening and self.projections[0].is_complete
        inputs = dim if self.reads_whitened else backbone.embedding_dim
        self.classifier = (
            Linear(inputs, num_classes, dtype=stored, rng=rng) if num_classes else None
        )

    def features(self, images: jax.Array, sizes: jax.Array | None = None) -> FeatureMap:
        """The trunk's output.

        Args:
            images: [B, H, W, 3], normalised.
            sizes: int32 [B, 2], valid height and width of each image, top-left in the
                canvas; None: all of it.
        """
        return self.trunk(FeatureMap(images, sizes))

    def head(
        self,
        features: FeatureMap,
        *,
        exponent: float | jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Output:
        """Pooling, embedding and classifier.

        Args:
            features: the trunk's output.
            exponent: p in place of the model's own; a number is a constant, an array
                is learned.
            dropout_key: randomness of the dropout, in training.
        """
        if exponent is None:
            exponent = self.constant_exponent
        if exponent is None:
            exponent = self.pooling_exponent[...]
        pooled = gem(features.values, exponent, sizes=features.sizes)
        embedding = pooled
        for projection in self.projections:
            embedding = projection(embedding)
        logits = None
        if self.classifier is not None:
            read = embedding if self.reads_whitened else pooled
            logits = self.classifier(self._dropout(read, dropout_key))
        normalized = NORMALIZATIONS[self.descriptor_head.normalize](embedding)
        return Output(embedding, normalized, logits)

    def __call__(
        self,
        images: jax.Array,
        *,
        sizes: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Output:
        """Embeddings and logits; arguments as of `features` and `head`."""
        return self.head(self.features(images, sizes), dropout_key=dropout_key)

    def _dropout(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        if self.deterministic or self.dropout_rate == 0:
            return x
        if key is None:
            raise ValueError(
                "dropout_key is missing: this backbone drops part of the embedding in "
                "training; give a key, or call model.eval()"
            )
        keep = jax.random.bernoulli(key, 1 - self.dropout_rate, x.shape)
        dropped = jnp.where(keep, x / (1 - self.dropout_rate), 0)
        if self.reads_whitened:
            # The last channel carries the bias: neither dropped nor scaled.
            dropped = dropped.at[:, -1].set(x[:, -1])
        return dropped


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    pooling_exponent: float = 3.0,
    dtype: DTypeLike = jnp.float32,
    batch_norm_group_size: int = 64,
    whitened: bool = False,
    num_components: int | None = None,
    head: DescriptorHead = PLAIN_HEAD,
    seed: int = 0,
) -> MultiGrain:
    """A MultiGrain network with fresh weights.

    Args:
        name: a key of `BACKBONES`.
        num_classes: rows of the classifier; 0 makes a model without one.
        pooling_exponent: p > 0 of the GeM pooling; infinity is max-pooling.
        dtype: compute dtype; parameters, statistics, pooling, normalisation and
            classifier are float32 or more.
        batch_norm_group_size: consecutive samples that share batch statistics; a
            smaller batch is one group.
        whitened: leave room for a whitening (and its constant channel).
        num_components: K, dimensions of a whitened embedding; None is all D + 1. With
            fewer the classifier reads the embedding before the whitening.
        head: another network's descriptor head, in place of a whitening; a classifier
            reads the embedding before it.
        seed: of the initial weights.

    Raises:
        InputError: another name, p not positive, or num_classes below 0.
    """
    return MultiGrain(
        backbone_row(name),
        num_classes=num_classes,
        pooling_exponent=pooling_exponent,
        dtype=dtype,
        batch_norm_group_size=batch_norm_group_size,
        head=_choose_head(head, whitened, num_components),
        rng=np.random.default_rng(seed),
    )


def abstract_model(
    name: str,
    *,
    num_classes: int = 1000,
    pooling_exponent: float = 3.0,
    dtype: DTypeLike = jnp.float32,
    batch_norm_group_size: int = 64,
    whitened: bool = False,
    num_components: int | None = None,
    head: DescriptorHead = PLAIN_HEAD,
) -> MultiGrain:
    """The network of `create_model` with shapes and dtypes in place of weights.

    It cannot run. `split_model` gives the same structure as of a model with weights,
    and variables of `jax.ShapeDtypeStruct`; they take no memory, and nothing is drawn.

    Args:
        name: as of `create_model`, and so are the others.
        num_classes: rows of the classifier; 0: none.
        pooling_exponent: p > 0 of the GeM pooling.
        dtype: compute dtype.
        batch_norm_group_size: consecutive samples that share batch statistics.
        whitened: leave room for a whitening.
        num_components: K, dimensions of a whitened embedding.
        head: another network's descriptor head.

    Raises:
        InputError: another name, p not positive, or num_classes below 0.
    """

    def make() -> MultiGrain:
        return MultiGrain(
            backbone_row(name),
            num_classes=num_classes,
            pooling_exponent=pooling_exponent,
            dtype=dtype,
            batch_norm_group_size=batch_norm_group_size,
            head=_choose_head(head, whitened, num_components),
            rng=None,
        )

    return nnx.eval_shape(make)


def _choose_head(
    head: DescriptorHead, whitened: bool, num_components: int | None
) -> DescriptorHead:
    if not whitened:
        return head
    if head != PLAIN_HEAD:
        raise InputError(
            f"head: found that of {head.origin} with whitened = True, expected one of "
            "the two; leave the other out"
        )
    return whitening_head(num_components)


def split_model(model: MultiGrain) -> tuple[nnx.GraphDef, Variables]:
    """A model as structure and arrays.

    The structure remembers whether the model was in training or evaluation mode.
    """
    graphdef, params, stats, exponent, head = nnx.split(
        model, nnx.Param, nnx.BatchStat, PoolingExponent, HeadValue
    )
    projections = string_keys(nnx.to_pure_dict(head)).get("projections", {})
    whitened = model.descriptor_head.is_whitening
    return graphdef, Variables(
        params=string_keys(nnx.to_pure_dict(params)),
        batch_stats=string_keys(nnx.to_pure_dict(stats)),
        pooling_exponent=nnx.to_pure_dict(exponent)["pooling_exponent"],
        whitening=projections["0"] if whitened else {},
        head={} if whitened else projections,
    )


def merge_model(graphdef: nnx.GraphDef, variables: Variables) -> MultiGrain:
    """The inverse of `split_model`; cheap only inside jax.jit."""
    head = {"0": variables.whitening} if variables.whitening else variables.head
    pure = {
        **variables.params,
        "pooling_exponent": variables.pooling_exponent,
        **({"projections": head} if head else {}),
    }
    merged = merge_dicts(pure, variables.batch_stats)
    return nnx.merge(graphdef, number_keys(merged), copy=True)
