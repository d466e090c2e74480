"""From a checkpoint to features in one call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from PIL import Image

from multigrain_jax.checkpoint import Checkpoint, load_checkpoint
from multigrain_jax.data.crops import eval_transform
from multigrain_jax.data.decoding import VIEWER, rgb_of_opened
from multigrain_jax.errors import InputError
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
    Output,
    Variables,
    abstract_model,
    merge_model,
    split_model,
    variables_of,
)
from multigrain_jax.ops.color import normalize_pixels_on_host
from multigrain_jax.runtime import compiler_options
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


def open_model(
    path: str | Path,
    *,
    step: int | None = None,
    raw: bool = False,
    pooling_exponent: float | None = None,
    dtype: DTypeLike = jnp.float32,
) -> OpenedModel:
    """A checkpoint as the structure and the arrays of a model.

    Args:
        path: a workdir or a step folder, or one of `weights.names()`.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step also where there is their running average.
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.
        dtype: compute dtype.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another model.
    """
    return open_checkpoint(
        load_checkpoint(find_weights(path), step=step, raw=raw),
        pooling_exponent=pooling_exponent,
        dtype=dtype,
    )


def open_checkpoint(
    checkpoint: Checkpoint,
    *,
    pooling_exponent: float | None = None,
    dtype: DTypeLike = jnp.float32,
) -> OpenedModel:
    """What was read of a checkpoint as the structure and the arrays of a model.

    Args:
        checkpoint: what was read.
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.
        dtype: compute dtype.

    Raises:
        InputError: weights that do not fit the backbone.
    """
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


class LoadedModel:
    """A model in evaluation mode with its weights, made by `load_model`.

    Attributes:
        backbone: its name, a key of `BACKBONES`.
        pooling_exponent: p of the GeM pooling in use.
        class_names: a name for each of the logits; empty if the checkpoint has none.
        step: optimiser updates behind the weights.
        variables: the weights, as plain arrays.
    """

    def __init__(self, opened: OpenedModel):
        """Put the model's arrays on the default device."""
        self.backbone = opened.name
        self.pooling_exponent = opened.pooling_exponent
        self.class_names = names_of_logits(opened)
        self.step = opened.checkpoint.step
        self.variables = jax.device_put(opened.variables)
        graphdef = opened.graphdef

        def apply(variables: Variables, images: jax.Array) -> Output:
            return merge_model(graphdef, variables)(images)

        self._nested = jax.jit(apply)
        self._outermost = jax.jit(
            apply, compiler_options=compiler_options(opened.backbone)
        )

    def __call__(
        self, images: np.ndarray | jax.Array | Sequence[np.ndarray | jax.Array]
    ) -> Output:
        """Embeddings of images, and logits where there is a classifier.

        Args:
            images: float32 [B, H, W, 3], normalised as `preprocess` does; or a list of
                [H, W, 3] arrays of any sizes (each size compiles once).

        Returns:
            `embedding` [B, D], `normalized_embedding` [B, D] and `logits`
            [B, classes] (None of a model without a classifier), float32.

        Raises:
            InputError: not such arrays.
        """
        if isinstance(images, (list, tuple)):
            if not images:
                raise InputError("images: an empty list; give at least one image")
            outputs = [self(jnp.asarray(image)[None]) for image in images]
            return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
        array = jnp.asarray(images)
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != jnp.float32:
            raise InputError(
                f"images: found {array.dtype}{list(array.shape)}, expected "
                "float32[B, H, W, 3], normalised; preprocess(photo) makes one image"
            )
        # Within a user's own program or gradient JAX refuses compiler options. Any
        # value made there is a tracer, also where the images are a constant of it.
        is_nested = isinstance(array, Tracer) or isinstance(jnp.zeros(()), Tracer)
        apply = self._nested if is_nested else self._outermost
        return apply(self.variables, array)

    def preprocess(
        self, image: Image.Image, test_size: int = 224, mode: str = "square"
    ) -> np.ndarray:
        """`preprocess`, EXIF orientation included, with this backbone's statistics."""
        return preprocess(image, test_size, mode, backbone=self.backbone)


def preprocess(
    image: Image.Image,
    test_size: int = 224,
    mode: str = "square",
    *,
    backbone: str = "resnet50",
) -> np.ndarray:
    """A photo as the network takes it: upright, resized, cropped and normalised.

    Pixel for pixel what `embed`, `search` and the evaluation of one's own folders see:
    the photo is turned as its EXIF orientation says. (ImageNet, TFDS and most
    benchmarks are evaluated as they are stored.)

    Args:
        image: the photo, as `Image.open` gives it; any mode, converted to RGB. It is
            not changed. Turn it yourself only with `ImageOps.exif_transpose`, which
            takes the orientation away; after `Image.rotate` or `Image.transpose` it
            still has one, by which it would be turned again.
        test_size: S, in pixels, at least 32.
        mode: "square": shorter side to int(256/224 · S), centre crop S × S; "rect":
            longer side to S, no crop.
        backbone: whose input mean and standard deviation.

    Returns:
        float32 [H, W, 3].
    """
    row = BACKBONES[backbone]
    resized = eval_transform(
        rgb_of_opened(image, VIEWER), test_size, mode, smallest_side=row.smallest_side
    )
    return normalize_pixels_on_host(np.asarray(resized), row.mean, row.std)


def load_model(
    path: str | Path,
    *,
    step: int | None = None,
    raw: bool = False,
    pooling_exponent: float | None = None,
) -> LoadedModel:
    """A model ready for inference, from a trained or a converted checkpoint.

    Args:
        path: a workdir or a step folder, or the name of published weights, one of
            `multigrain_jax.weights.names()`: they are downloaded, converted and kept
            when they are first asked for.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step also where the run kept their running average
            (`ema_decay`), which is taken otherwise.
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.

    Raises:
        InputError: no such checkpoint, a damaged one, or weights that did not come.
    """
    return LoadedModel(
        open_model(path, step=step, raw=raw, pooling_exponent=pooling_exponent)
    )
