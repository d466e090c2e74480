"""Which photos of a collection may be a pair, by their folder or split."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from multigrain_jax.data.bucket_paths import absolute_path
from multigrain_jax.data.sources.folder import TRAIN, VAL
from multigrain_jax.data.sources.open import open_split
from multigrain_jax.descriptors.joined import JoinedIndex
from multigrain_jax.descriptors.near_duplicates import Rule
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.embed_record import (
    ADDED_KEYS,
    PHOTO_KEYS,
    embed_config,
    workdir_of,
)
from multigrain_jax.tasks.inputs import data_set_from_config

# What the key `pairs` may say -> whether the labels of a pair's photos are to be equal.
RULES: Mapping[str, Rule] = {
    "any": "any",
    "same_folder": "same",
    "other_folder": "different",
    "train_val": "different",
}
# Labels of the rule "train_val".
IN_TRAIN, IN_VAL = 0, 1


def labels_of_rule(
    joined: JoinedIndex, pairs: str, data: Mapping[str, Any]
) -> np.ndarray | None:
    """The label of every row for a rule of `RULES`, int32 [N]; None where all pair.

    Args:
        joined: the collections.
        pairs: the rule.
        data: that part of the configuration.

    Raises:
        InputError: no photo is of one of the splits.
    """
    if pairs == "any":
        return None
    paths = joined.paths(np.arange(len(joined)))
    if pairs != "train_val":
        numbers: dict[str, int] = {}
        folders = (os.path.dirname(path) for path in paths)
        labels = [numbers.setdefault(folder, len(numbers)) for folder in folders]
        return np.array(labels, np.int32)
    splits = _splits(joined, data)
    labels = np.array([splits.get(path, -1) for path in paths], np.int32)
    for split, label in ((TRAIN, IN_TRAIN), (VAL, IN_VAL)):
        if not np.any(joined.live & (labels == label)):
            raise InputError(
                f"database: {workdir_of(joined.parts[0])} has no photo of {split!r}, "
                "expected those of both splits; embed the whole folder, or each split "
                "on its own and give the other one with --config.reference=DIR"
            )
    return labels


def _splits(joined: JoinedIndex, data: Mapping[str, Any]) -> dict[str, int]:
    """Which photo is of which split, by its path."""
    workdir = workdir_of(joined.parts[0])
    config = embed_config(workdir, PHOTO_KEYS)
    if config is None:
        raise InputError(
            f"database: {workdir} has no config.json of `embed`, which says what the "
            "data set is; expected the workdir that `embed` has written"
        )
    config = {"verify_cache": False, **config}
    config["data"] = {**ADDED_KEYS, **config["data"], "num_images": None}
    if config["data"]["source"] == "folder":
        config["data"]["val_fraction"] = data["val_fraction"]
    if data["root"] is not None:
        config["data"]["root"] = absolute_path(data["root"])
    splits: dict[str, int] = {}
    for split, label in ((TRAIN, IN_TRAIN), (VAL, IN_VAL)):
        source = open_split(data_set_from_config(config), split)
        splits |= {source.describe(n): label for n in range(len(source))}
    return splits
