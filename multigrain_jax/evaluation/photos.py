"""Descriptors of photo files, for who has a model in Python and no workdir."""

import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from multigrain_jax.checkpoint.made_for import SMALLEST_SIZE
from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.decoding import (
    PIXELS,
    SPEEDS,
    VIEWER,
    Decoding,
    decoding_of_record,
)
from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.data.reading import Reading, why_unreadable
from multigrain_jax.data.sources.folder import UNLABELLED, ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.errors import InputError, printable
from multigrain_jax.evaluation.embed import (
    EmbeddedBatch,
    EmbedStep,
    embed_source_batches,
)
from multigrain_jax.evaluation.engine_step import embed_step_of
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import Backbone, Variables
from multigrain_jax.ops.refinement import merge_scales

# As the recipes read photos.
READING = Reading(num_workers=0, prefetch=4, timeout_s=600.0)
NAMED = 10


class PhotoEmbedder:
    """Embeds photo files in batches of a few shapes, on all devices."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        variables: Variables,
        *,
        backbone: Backbone,
        engine: str,
    ):
        """Compile nothing yet.

        Args:
            graphdef: the model's evaluation structure.
            variables: its arrays.
            backbone: its row of `BACKBONES`.
            engine: what computes it, a name of `ENGINES`.
        """
        self._graphdef, self._variables = graphdef, variables
        self._backbone, self._engine = backbone, engine
        self._step: EmbedStep | None = None
        self._lock = threading.Lock()

    def __call__(
        self,
        paths: Sequence[str | Path],
        *,
        test_sizes: Sequence[int],
        test_mode: str,
        decoding: str | None,
        decode: str | None,
        batch_size: int,
    ) -> np.ndarray:
        """The descriptors of N photos, float32 [N, D], of unit length.

        Args:
            paths: of the photos, at least one.
            test_sizes: S, in pixels, from `checked_sizes`; of several the embeddings
                are averaged, and made of unit length.
            test_mode: "square" or "rect", from `checked_mode`.
            decoding: how photos become pixels, as of `LoadedModel.embed`.
            decode: how fast, likewise.
            batch_size: photos at once.

        Raises:
            InputError: no path, another word or number, or photos that cannot be read.
        """
        files = [ImageFile(str(as_path(p)), UNLABELLED) for p in _checked_paths(paths)]
        source = FileSource(
            files,
            class_names=[],
            decoding=_decoding(decoding, decode),
            local_cache_dir=None,
        )
        # A photo alone is not worth a whole batch.
        devices = jax.device_count()
        rows = min(_checked_batch_size(batch_size), len(source))
        rows = -(-rows // devices) * devices
        is_merged = len(test_sizes) > 1
        found = []
        for size in test_sizes:
            batches = self._batches(source, size, test_mode, rows)
            found.append(_in_order(source, batches, of_unit_length=not is_merged))
        return merge_scales(found) if is_merged else found[0]

    def _batches(
        self, source: FileSource, test_size: int, test_mode: str, batch_size: int
    ) -> Iterator[EmbeddedBatch]:
        mesh = make_mesh()
        with self._lock:
            if self._step is None:
                # One tree for all calls: another engine's step is for that alone.
                self._variables = put_replicated(mesh, self._variables)
                self._step = embed_step_of(
                    self._engine, self._graphdef, backbone=self._backbone, mesh=mesh
                )
        return embed_source_batches(
            source,
            embed_step=self._step,
            variables=self._variables,
            backbone=self._backbone,
            test_size=test_size,
            test_mode=test_mode,
            batch_size=batch_size,
            reading=READING,
            mesh=mesh,
        )


def _in_order(
    source: FileSource, batches: Iterator[EmbeddedBatch], *, of_unit_length: bool
) -> np.ndarray:
    """What batches have of a source's photos, float32 [N, D], in its order.

    Raises:
        InputError: photos that cannot be read.
    """
    found, bad = None, np.zeros(len(source), bool)
    for batch in batches:
        rows = batch.descriptors if of_unit_length else batch.embedding
        if found is None:
            found = np.empty((len(source), rows.shape[1]), np.float32)
        found[batch.indices], bad[batch.indices] = rows, batch.bad
    _refuse_unreadable(source, np.flatnonzero(bad))
    assert found is not None  # of one photo at least
    return found


def checked_sizes(found: Any) -> tuple[int, ...]:
    """The sizes that an argument `test_size` names, in pixels, in ascending order.

    Args:
        found: a size, or a list of them.

    Raises:
        InputError: something else, or a size that is too small for a network.
    """
    sizes = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    are_sizes = all(_is_count(size, least=SMALLEST_SIZE) for size in sizes)
    if not are_sizes or not 0 < len(sizes) == len(set(sizes)):
        raise InputError(
            f"test_size: found {found!r}, expected a whole number of pixels, at least "
            f"{SMALLEST_SIZE}, or a list of different ones"
        )
    return tuple(sorted(int(size) for size in sizes))


def checked_size(found: Any) -> int:
    """The one size that an argument `test_size` names, in pixels.

    Raises:
        InputError: as of `checked_sizes`, or several.
    """
    sizes = checked_sizes(found)
    if len(sizes) != 1:
        raise InputError(
            f"test_size: found {found!r}, expected one; `embed` takes several"
        )
    return sizes[0]


def checked_mode(found: Any) -> str:
    """A mode in which photos are resized, as it was given.

    Raises:
        InputError: another word.
    """
    return _known("mode", found, TEST_MODES)


def require_photo(found: Any) -> None:
    """Refuse what is neither a path nor an image.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(found, Image.Image) and not is_path(found):
        raise InputError(
            f"photo: found {told(found)}, expected a path, or an image that Pillow "
            "has opened; Image.fromarray makes one of uint8[H, W, 3]"
        )


def told(found: Any) -> str:
    """What was found where a path was expected: a name as it is, else its kind."""
    if found is None or isinstance(found, (str, os.PathLike)):
        return repr(found)
    return f"a value of the type {type(found).__name__}"


def is_path(found: Any) -> bool:
    """Whether a value may name a file: no name has a byte of zero in it."""
    if not isinstance(found, (str, os.PathLike)):
        return False
    name = os.fspath(found)
    return isinstance(name, str) and "\0" not in name


def _checked_paths(paths: Any) -> list[Any]:
    is_one = isinstance(paths, (str, bytes, os.PathLike))
    try:
        listed = [] if is_one else list(paths)
    except TypeError:  # none that can be gone through
        listed = []
    if not listed:
        raise InputError(
            f"paths: found {paths!r}, expected a list of at least one photo; "
            "sorted(Path(folder).rglob('*.jpg')) makes one of a folder"
        )
    for number, found in enumerate(listed):
        if not is_path(found):
            raise InputError(
                f"paths: found {told(found)} as number {number}, expected paths of "
                "files; images that are open go through `preprocess`, and what it "
                "makes of them into a list that the model is called with"
            )
    return listed


def _checked_batch_size(found: Any) -> int:
    if not _is_count(found, least=1):
        raise InputError(
            f"batch_size: found {found!r}, expected a whole number of at least 1"
        )
    return int(found)


def _is_count(found: Any, *, least: int) -> bool:
    is_whole = isinstance(found, Integral) and not isinstance(found, bool)
    return is_whole and int(found) >= least


def _known(name: str, found: Any, words: Sequence[str]) -> str:
    if not isinstance(found, str) or found not in words:
        raise InputError(f"{name}: found {found!r}, expected one of {', '.join(words)}")
    return found


def _decoding(record: str | None, speed: str | None) -> Decoding:
    """How photos become pixels, by the arguments of `LoadedModel.embed`."""
    if record == VIEWER.pixels:
        # A word alone, which no record is: as the task `embed` has it by default.
        found = dataclasses.replace(VIEWER, fast=True)
    else:
        try:
            found = decoding_of_record(
                "upright" if record is None else record,
                max_megapixels=VIEWER.max_megapixels,
            )
        except (AttributeError, IndexError, ValueError) as error:
            raise InputError(
                f"decoding: found {record!r}, expected one of {', '.join(PIXELS)}, or "
                "what the settings of a DescriptorIndex have as decoding"
            ) from error
    if speed is None:
        return found
    return dataclasses.replace(found, fast=_known("decode", speed, SPEEDS) == "fast")


def _refuse_unreadable(source: FileSource, bad: np.ndarray) -> None:
    if not len(bad):
        return
    lines = [
        printable(f"{source.describe(int(n))}: {why_unreadable(source, int(n))}")
        for n in bad[:NAMED]
    ]
    raise InputError(
        f"{len(bad)} of {len(source)} photos could not be read, expected none; leave "
        "them out:\n  " + "\n  ".join(lines)
    )
