"""Photos of a collection whose names need not be those of files."""

import os
from collections.abc import Callable

from PIL import Image

from multigrain_jax.data.bucket_paths import ADDRESSES, file_path
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.pages.gallery import load_photo, load_photo_of


class PhotoReader:
    """Reads photos by the names that the index of a descriptor folder has for them.

    A file is read as `load_photo` does. Other names, such as those of a TFDS split, are
    looked up in the source that `embed` read, which is opened for the first of them.

    Attributes:
        missing: paths of files that were asked for and are not there.
    """

    def __init__(
        self, open_source: Callable[[], ImageSource | None], *, collection: str
    ):
        """Open nothing yet.

        Args:
            open_source: opens the source; None where all photos are files. What it
                raises for wrong input is printed, and costs the page these photos.
            collection: whose photos they are, for that line.
        """
        self._open_source = open_source
        self._collection = collection
        self.missing: set[str] = set()
        self._is_open = False
        self._source: ImageSource | None = None
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> Image.Image | None:
        """One photo, or None where it cannot be read any more."""
        if file_path(name).is_file():
            return load_photo(name)
        if not self._is_open:
            self._open()
        number = self._numbers.get(name)
        if self._source is None or number is None:
            in_bucket = name.startswith(ADDRESSES)
            if in_bucket or (os.path.isabs(name) and not os.path.exists(name)):
                self.missing.add(name)
            return None
        return load_photo_of(self._source, number)

    def _open(self) -> None:
        self._is_open = True
        try:
            self._source = self._open_source()
        except (InputError, ImportError) as error:
            # The results do not need the photos.
            print(f"the page cannot show the photos of {self._collection}: {error}")
            return
        if self._source is not None:
            for number in range(len(self._source)):
                self._numbers.setdefault(self._source.describe(number), number)
