"""What the rest of the package knows of a set of images."""

import io
import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from multigrain_jax.data.bucket_tree import Stamp
from multigrain_jax.data.decoding import Decoding


class ImageSource(Protocol):
    """A numbered set of encoded images.

    Attributes:
        labels: int32 [N]; -1 is unlabelled.
        class_names: the name of each label.
        decoding: how its photos become pixels.
        remarks: lines about what was passed over when the images were listed.
        instances: int32 [N], the same number for images that are known to show the
            same thing; None: each image is an instance of its own.
    """

    labels: np.ndarray
    class_names: list[str]
    decoding: Decoding
    remarks: Sequence[str] = ()
    instances: np.ndarray | None = None

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        ...

    def describe(self, index: int) -> str:
        """Where one image is: its path, or the data set's key."""
        ...

    def ask_for(self, indices: Iterable[int]) -> None:
        """Tell which images will be read next: a slow source begins with them.

        Nothing comes of it but time; the caller reads them as if it had not asked.
        """

    def stamp(self, index: int) -> Stamp | None:
        """Size and time of change of one image; None where it is no file of its own."""
        try:
            found = os.stat(self.describe(index))
        except (OSError, ValueError):
            return None
        return Stamp(found.st_size, found.st_mtime_ns)

    def open(self, index: int) -> BinaryIO:
        """One image's encoded bytes as an open file.

        To look at a header only: a source of files need not read the whole file.
        """
        return io.BytesIO(self.read(index))
