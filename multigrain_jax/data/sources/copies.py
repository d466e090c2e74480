"""Edited copies of a source's photos: queries for copy detection."""

import io
from collections.abc import Sequence

import numpy as np

from multigrain_jax.data.decoding import PLAIN, decode
from multigrain_jax.data.edits import Edit
from multigrain_jax.data.sources.source import ImageSource


class CopySource(ImageSource):
    """An image source of edited copies of another source's images."""

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int] | np.ndarray,
        make_copy: Edit,
    ):
        """Choose the photos and the edit.

        Args:
            source: where the originals are.
            indices: which originals; copy k is of original `indices[k]`.
            make_copy: the edit; picklable, if reading happens in other processes.
        """
        self._source = source
        self._indices = [int(index) for index in indices]
        self._make_copy = make_copy
        self.labels = np.asarray(source.labels)[self._indices]
        self.class_names = source.class_names
        self._original_decoding = source.decoding
        # The copies are written upright, as RGB.
        self.decoding = PLAIN

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> bytes:
        """The copy as a PNG file, so that nothing but the edit changes it."""
        original = decode(
            self._source.read(self._indices[index]), self._original_decoding
        )
        encoded = io.BytesIO()
        self._make_copy(original).save(encoded, format="PNG", compress_level=0)
        return encoded.getvalue()

    def describe(self, index: int) -> str:
        """The original's name, marked as a copy."""
        return f"copy of {self._source.describe(self._indices[index])}"
