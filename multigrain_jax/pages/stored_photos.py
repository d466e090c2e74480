"""What is behind a descriptor folder: the run that made it, and its photos."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from PIL import Image

from multigrain_jax.data.sources.open import open_split
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.inputs import data_set_from_config
from multigrain_jax.pages.gallery import load_photo, load_photo_of
from multigrain_jax.workdir import CONFIG_FILE

# Where each photo is a file, and its path says all.
SOURCES_OF_FILES = ("folder", "imagenet")
# Keys of config.json that are read here and by the search -> the types of their values.
Keys = Mapping[str, tuple[type, ...]]
CHECKPOINT_KEYS: Keys = {"init_from": (str,), "init_step": (int, NoneType)}
PHOTO_KEYS: Keys = {
    "data.source": (str,),
    "data.root": (str, NoneType),
    "data.split": (str, NoneType),
    "data.list_file": (str, NoneType),
    "data.val_fraction": (float, int),
    "data.num_images": (int, NoneType),
    "data.local_cache_dir": (str, NoneType),
}


def embed_config(database: str | Path, keys: Keys) -> dict[str, Any] | None:
    """The configuration of the run of `embed` that made some descriptors.

    Args:
        database: its workdir, or the descriptor folder in it.
        keys: what is needed of it, a dot between the names of nested keys.

    Returns:
        What config.json has, or None where there is none.

    Raises:
        InputError: it cannot be read, or is not what `embed` writes.
    """
    path = Path(database).expanduser()
    for folder in (path, path.absolute().parent):
        file = folder / CONFIG_FILE
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _damaged(file, reason) from error
        if not isinstance(config, dict):
            raise _damaged(file, "not a JSON object")
        for key, types in keys.items():
            value = config
            for name in key.split("."):
                if not isinstance(value, dict) or name not in value:
                    raise _damaged(file, f"{key} is missing")
                value = value[name]
            if not isinstance(value, types):
                raise _damaged(file, f"{key} is {value!r}")
        return config
    return None


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(
        f"{file}: {reason}; the configuration of a run of `embed` was expected: remove "
        "it, and run `embed` there as before, which writes it anew and embeds no photo "
        "again"
    )


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
        try:
            config = embed_config(self._database, PHOTO_KEYS)
            if config is None or config["data"]["source"] in SOURCES_OF_FILES:
                return
            self._source = open_split(
                data_set_from_config(config), config["data"]["split"]
            )
        except (InputError, ImportError) as error:
            # The results do not need the photos.
            print(f"the page cannot show the photos of {self._database}: {error}")
            return
        for number in range(len(self._source)):
            self._numbers.setdefault(self._source.describe(number), number)
