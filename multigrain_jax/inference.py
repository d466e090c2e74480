"""From a checkpoint to features in one call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.checkpoint.made_for import for_search, made_for
from multigrain_jax.engines.sessions import JAX, EngineStep, require_engine
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.engine_step import as_output, by_name
from multigrain_jax.evaluation.photos import (
    PhotoEmbedder,
    checked_mode,
    checked_size,
    checked_sizes,
    is_path,
    require_photo,
    told,
)
from multigrain_jax.evaluation.running import run_in_order, run_in_parts
from multigrain_jax.models.multigrain import (
    Output,
    Variables,
    merge_model,
)
from multigrain_jax.opened_model import (
    OpenedModel,
    names_of_logits,
    open_checkpoint,
)
from multigrain_jax.ops.refinement import merge_scales
from multigrain_jax.preprocessing import Photo, preprocess
from multigrain_jax.runtime import compiler_options, keep_compiled_programs
from multigrain_jax.weights import find_weights


class LoadedModel:
    """A model in evaluation mode with its weights, made by `load_model`.

    Attributes:
        backbone: its name, a key of `BACKBONES`.
        pooling_exponent: p of the GeM pooling in use.
        class_names: a name for each of the logits; empty if the checkpoint has none.
        step: optimiser updates behind the weights.
        test_size: S, in pixels: what it was trained or published for.
        test_mode: "square" or "rect", likewise.
        variables: the arrays that it computes with, batch norms folded.
        engine: what computes, a name of `ENGINES`.
    """

    def __init__(self, opened: OpenedModel, *, engine: str = JAX):
        """Put the model's arrays on the default device.

        Args:
            opened: the model.
            engine: what is to compute, as of `load_model`.

        Raises:
            InputError: an engine that is not there.
        """
        require_engine(engine)
        opened = opened.for_inference(engine)
        self.engine = engine
        self.backbone = opened.name
        self.pooling_exponent = opened.pooling_exponent
        self.class_names = names_of_logits(opened)
        self.step = opened.checkpoint.step
        backbone, meta = opened.backbone, opened.checkpoint.meta
        best = made_for(meta, default_size=backbone.default_size)
        self.test_size, self.test_mode = best[:2]
        self._search = for_search(meta)
        self._smallest_side = backbone.smallest_side
        self.variables = jax.device_put(opened.variables)
        graphdef = opened.graphdef
        self._embedder = PhotoEmbedder(
            graphdef, self.variables, backbone=backbone, engine=engine
        )

        def apply(variables: Variables, images: jax.Array) -> Output:
            return merge_model(graphdef, variables)(images)

        self._compiled: set[Any] = set()
        self._nested = jax.jit(apply)
        self._at_once = None
        self._outermost = jax.jit(apply, compiler_options=compiler_options(backbone))
        if engine != JAX:
            # It takes all cores for one batch.
            self._at_once = 1
            self._outermost = _by_onnx_runtime(apply)

    def __call__(
        self, images: np.ndarray | jax.Array | Sequence[np.ndarray | jax.Array]
    ) -> Output:
        """Embeddings of images, and logits where there is a classifier.

        Args:
            images: float32 [B, H, W, 3], normalised as `preprocess` does; or a list of
                [H, W, 3] arrays of any sizes (each size compiles once; by ONNX Runtime
                once in every call that has more than eight).

        Returns:
            `embedding` [B, D], `normalized_embedding` [B, D] and `logits`
            [B, classes] (None of a model without a classifier), float32.

        Raises:
            InputError: not such arrays.
        """
        if isinstance(images, (list, tuple)):
            if not images:
                raise InputError("images: an empty list; give at least one image")
            arrays = [self._checked(_as_array(image)[None]) for image in images]
            if any(_is_nested(array) for array in arrays):
                outputs = [self._nested(self.variables, array) for array in arrays]
            else:
                # An engine that forgets sizes meets each of them once.
                order = sorted(range(len(arrays)), key=lambda n: arrays[n].shape)
                found = run_in_order(
                    self._run,
                    [arrays[n] for n in order],
                    compiled=self._compiled,
                    at_once=self._at_once,
                )
                placed = dict(zip(order, found, strict=True))
                outputs = [placed[n] for n in range(len(arrays))]
            return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
        array = self._checked(_as_array(images))
        if _is_nested(array):
            return self._nested(self.variables, array)
        return run_in_parts(
            self._run, array, compiled=self._compiled, at_once=self._at_once
        )

    def _checked(self, images: jax.Array) -> jax.Array:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.float32:
            raise InputError(
                f"images: found {images.dtype}{list(images.shape)}, expected "
                "float32[B, H, W, 3], normalised; preprocess(photo) makes one image"
            )
        height, width = images.shape[1:3]
        if min(height, width) < self._smallest_side:
            raise InputError(
                f"images: found {height} x {width} pixels, expected at least "
                f"{self._smallest_side} on each side for {self.backbone}"
            )
        return images

    def _run(self, images: jax.Array) -> Output:
        return self._outermost(self.variables, images)

    def preprocess(
        self, photo: Photo, test_size: int | None = None, mode: str | None = None
    ) -> np.ndarray:
        """`preprocess`, EXIF orientation included, with this backbone's statistics.

        Args:
            photo: a path, or the photo as `Image.open` gives it.
            test_size: S, in pixels; None is `self.test_size`.
            mode: "square" or "rect"; None is `self.test_mode`.

        Returns:
            float32 [H, W, 3].

        Raises:
            InputError: a photo that cannot be read, several sizes or one that is too
                small, or another mode.
        """
        require_photo(photo)
        size = checked_size(self.test_size if test_size is None else test_size)
        mode = checked_mode(self.test_mode if mode is None else mode)
        return preprocess(photo, size, mode, backbone=self.backbone)

    def embed(
        self,
        paths: Sequence[str | Path],
        *,
        test_size: int | Sequence[int] | None = None,
        mode: str | None = None,
        decoding: str | None = "viewer",
        decode: str | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """The descriptors of photo files; of photos of any shapes in few programs.

        They are those that the task `embed` makes by default. For a collection that was
        made otherwise `DescriptorIndex.settings` have the `sizes`, the mode and the
        `decoding`, and p for `load_model`.

        Args:
            paths: of N photos, at least one.
            test_size: S, in pixels, or several, whose embeddings are averaged, and made
                of unit length; None is what the network was made for, else 500. p stays
                as it was loaded.
            mode: "rect": whole photos, or "square"; None is what the network was
                published with, else "rect".
            decoding: how photos become pixels: the `decoding` of a collection's
                settings, also where that is None, as of folders older than such
                records; or "viewer": as a viewer shows them; "upright": turned as EXIF
                says, and no more; "plain": as they are stored.
            decode: "fast": large JPEGs at a fraction of their size, or "exact"; None:
                "fast" with "viewer", else as `decoding` says, which is "exact" unless
                it ends with "fast".
            batch_size: photos at once.

        Returns:
            float32 [N, D], of unit length: `found @ found.T` are similarities.

        Raises:
            InputError: no path, another word or number, or photos that cannot be read;
                the message names them.
        """
        sizes, mode = self._as_searched(test_size, mode)
        return self._embedder(
            paths,
            test_sizes=sizes,
            test_mode=mode,
            decoding=decoding,
            decode=decode,
            batch_size=batch_size,
        )

    def _as_searched(
        self, size: int | Sequence[int] | None, mode: str | None
    ) -> tuple[tuple[int, ...], str]:
        """Sizes and a mode, where none is given those of the task `embed`."""
        sizes = checked_sizes(self._search.test_size if size is None else size)
        return sizes, checked_mode(self._search.test_mode if mode is None else mode)

    def similarity(
        self,
        photo: Photo,
        other: Photo,
        *,
        test_size: int | Sequence[int] | None = None,
        mode: str | None = None,
    ) -> float:
        """How alike two photos are to the network, from -1 to 1: the same pixels are 1.

        Both are decoded as a viewer shows them, at their whole size; `embed` has the
        other ways. From which value on two photos are copies depends on the model: see
        `copy_threshold_at_p90` in the scores of its training.

        Args:
            photo: a path, or the photo as `Image.open` gives it.
            other: another one.
            test_size: S, in pixels, or several; None is as of `embed`.
            mode: "rect": whole photos, or "square"; None is as of `embed`.

        Raises:
            InputError: a photo that cannot be read, another size or mode.
        """
        sizes, mode = self._as_searched(test_size, mode)
        found = []
        for size in sizes:
            images = [self.preprocess(each, size, mode) for each in (photo, other)]
            found.append(np.asarray(self(images).embedding))
        one, two = merge_scales(found).astype(np.float64)
        return float(np.clip(one @ two, -1, 1))


def _by_onnx_runtime(
    apply: Callable[[Variables, jax.Array], Output],
) -> Callable[[Variables, jax.Array], Output]:
    """A function of a model's arrays and images, by another engine than JAX."""

    def compute(
        variables: Variables, inputs: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        return by_name(apply(variables, inputs["images"]))

    step = EngineStep(compute)

    def run(variables: Variables, images: jax.Array) -> Output:
        return as_output(step(variables, {"images": np.asarray(images)}))

    return run


def _as_array(images: Any) -> jax.Array:
    try:
        return jnp.asarray(images)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"images: found {told(images)}, expected float32[B, H, W, 3], or a list of "
            "float32[H, W, 3]; preprocess(photo) makes one image"
        ) from error


def _is_nested(images: jax.Array) -> bool:
    """Whether this is a part of a user's own program or gradient.

    JAX refuses compiler options there. Any value made there is a tracer, also where the
    images are a constant of it.
    """
    return isinstance(images, Tracer) or isinstance(jnp.zeros(()), Tracer)


def load_model(
    path: str | Path,
    *,
    step: int | None = None,
    raw: bool = False,
    pooling_exponent: float | Literal["auto", "inf"] | None = "auto",
    engine: str = JAX,
) -> LoadedModel:
    """A model ready for inference, from a trained or a converted checkpoint.

    What this process compiles from now on is kept for the next one, below the user's
    cache folder: a folder that JAX is told stays, and JAX_ENABLE_COMPILATION_CACHE=0
    keeps nothing.

    Args:
        path: a workdir or a step folder, or the name of published weights, one of
            `multigrain_jax.weights.names()`: they are downloaded, converted and kept
            when they are first asked for.
        step: which step of a workdir; None is the newest.
        raw: the weights of the last step also where the run kept their running average
            (`ema_decay`), which is taken otherwise.
        pooling_exponent: p of the GeM pooling, more than 0; infinity, as a word too
            ("inf"), is the largest value; None is the checkpoint's; "auto" the one that
            its weights were published with for search, else the checkpoint's.
        engine: what computes: "jax", or on CPUs "onnxruntime", with the extra of that
            name: the same descriptors but for rounding. Within programs and gradients
            of yours JAX computes.

    Raises:
        InputError: no such checkpoint, a damaged one, weights that did not come, or an
            engine or a p that is not there.
    """
    require_engine(engine)
    if not is_path(path):
        raise InputError(
            f"path: found {told(path)}, expected a workdir, a step folder, or the name "
            "of published weights"
        )
    keep_compiled_programs()
    checkpoint = load_checkpoint(find_weights(path), step=step, raw=raw)
    if isinstance(pooling_exponent, str) and pooling_exponent == "auto":
        pooling_exponent = for_search(checkpoint.meta).pooling_exponent
    opened = open_checkpoint(checkpoint, pooling_exponent=pooling_exponent)
    return LoadedModel(opened, engine=engine)
