"""What `embed` recorded of the run that made a descriptor folder, and its photos."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from multigrain_jax.data.sources.open import open_split
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.pages.stored_photos import PhotoReader
from multigrain_jax.tasks.inputs import data_set_from_config
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


def photo_reader(database: str | Path) -> PhotoReader:
    """Reads the photos of a workdir of `embed`, or of the descriptor folder in it."""
    return PhotoReader(partial(_open_photos, database), collection=str(database))


def _open_photos(database: str | Path) -> ImageSource | None:
    config = embed_config(database, PHOTO_KEYS)
    if config is None or config["data"]["source"] in SOURCES_OF_FILES:
        return None
    return open_split(data_set_from_config(config), config["data"]["split"])


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(
        f"{file}: {reason}; the configuration of a run of `embed` was expected: remove "
        "it, and run `embed` there as before, which writes it anew and embeds no photo "
        "again"
    )
