"""Collections that a search compares its database with: of the same model and sizes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.descriptors.folder import DescriptorSettings, require_same_settings
from multigrain_jax.descriptors.index import DescriptorIndex, ScoreNormalization
from multigrain_jax.errors import printable
from multigrain_jax.tasks.embed_record import comparable, open_together

TRAINING = "score_normalization.training"


def open_normalization(
    settings: Mapping[str, Any], database: DescriptorIndex
) -> ScoreNormalization | None:
    """How a configuration normalises scores; None where it does not.

    A line says so where that is by the database itself.

    Args:
        settings: the configuration as nested dictionaries.
        database: what is searched.

    Raises:
        InputError: no such collection, or one that was made otherwise.
    """
    chosen = settings["score_normalization"]
    if not chosen["training"]:
        return None
    path = as_path(chosen["training"])
    training = open_together(path, fits=comparable(settings_of(database)))
    require_comparable(training, database, path)
    if _is_same(training, database):
        print(
            printable(
                f"{TRAINING}: scores are normalised by the database's own photos, "
                f"found in {path}, where a third collection was expected: give one of "
                f"other photos with --config.{TRAINING}=DIR"
            )
        )
    return ScoreNormalization(
        training, chosen["num_neighbours"], chosen["weight"], chosen["reduction"]
    )


def require_comparable(
    index: DescriptorIndex, database: DescriptorIndex, path: Path
) -> None:
    """Refuse a collection whose descriptors are not like those of the database.

    Args:
        index: the collection.
        database: what is searched.
        path: of the collection, for the error.

    Raises:
        InputError: they were made otherwise.
    """
    settings = settings_of(index)
    # Only how they are stored may differ.
    expected = settings_of(database)._replace(dtype=settings.dtype)
    require_same_settings(settings, expected, folder=path)


def settings_of(index: DescriptorIndex) -> DescriptorSettings:
    """How the descriptors of a collection that was opened were made."""
    assert index.settings is not None  # it was opened from a folder
    return index.settings


def _is_same(one: DescriptorIndex, other: DescriptorIndex) -> bool:
    assert one.opened is not None and other.opened is not None
    folders = (one.opened.folder, other.opened.folder)
    return len({os.path.realpath(folder) for folder in folders}) == 1
