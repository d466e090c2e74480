"""Descriptors of photo files, for who has a model in Python and no workdir."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

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
            test_sizes: S, in pixels; of several the embeddings are averaged, and made
                of unit length.
            test_mode: "square" or "rect", as `plan_batches` has them.
            decoding: how photos become pixels, as of `LoadedModel.embed`.
            decode: how fast, likewise.
            batch_size: photos at once.

        Raises:
            InputError: no path, another word, or photos that cannot be read.
        """
        if isinstance(paths, (str, Path)) or not len(paths):
            raise InputError(
                f"paths: found {paths!r}, expected a list of at least one photo; "
                "sorted(Path(folder).rglob('*.jpg')) makes one of a folder"
            )
        _require_word("mode", test_mode, TEST_MODES)
        files = [ImageFile(str(as_path(p)), UNLABELLED) for p in paths]
        source = FileSource(
            files,
            class_names=[],
            decoding=_decoding(decoding, decode),
            local_cache_dir=None,
        )
        # A photo alone is not worth a whole batch.
        devices = jax.device_count()
        rows = -(-min(batch_size, len(source)) // devices) * devices
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


def _require_word(name: str, found: str, known: Sequence[str]) -> None:
    if found not in known:
        raise InputError(f"{name}: found {found!r}, expected one of {', '.join(known)}")


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
    _require_word("decode", speed, SPEEDS)
    return dataclasses.replace(found, fast=speed == "fast")


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
