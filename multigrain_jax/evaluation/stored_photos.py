"""What is behind a descriptor folder: the run that made it, and its photos."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from multigrain_jax.data.image_source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.gallery import load_photo, load_photo_of
from multigrain_jax.evaluation.inputs import open_split
from multigrain_jax.metric_writer import CONFIG_FILE

# Where each photo is a file, and its path says all.
SOURCES_OF_FILES = ("folder", "imagenet")


def embed_config(database: str | Path) -> dict[str, Any] | None:
    """The configuration of the run of `embed` that made some descriptors.

    Args:
        database: its workdir, or the descriptor folder in it.

    Returns:
        What config.json has, or None where there is none.
    """
    path = Path(database).expanduser()
    for folder in (path, path.absolute().parent):
        if (folder / CONFIG_FILE).exists():
            return json.loads((folder / CONFIG_FILE).read_text())
    return None


class PhotoReader:
    """Reads photos by the names that the index of a descriptor folder has for them.

    Names that are no files, such as those of a TFDS split, are looked up in the source
    that `embed` read, which is opened again for the first of them.
    """

    def __init__(self, database: str | Path):
        """Take the photos of `database`, a workdir of `embed` or the folder in it."""
        self._database = database
        self._is_open = False
        self._source: ImageSource | None = None
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> Image.Image | None:
        """One photo, or None where it cannot be read any more."""
        if Path(name).is_file():
            return load_photo(name)
        if not self._is_open:
            self._open()
        number = self._numbers.get(name)
        if self._source is None or number is None:
            return None
        return load_photo_of(self._source, number)

    def _open(self) -> None:
        self._is_open = True
        config = embed_config(self._database)
        if config is None or config["data"]["source"] in SOURCES_OF_FILES:
            return
        try:
            self._source = open_split(config, config["data"]["split"])
        except (InputError, ImportError) as error:
            # The results do not need the photos.
            print(f"the page cannot show the photos of {self._database}: {error}")
            return
        for number in range(len(self._source)):
            self._numbers.setdefault(self._source.describe(number), number)
