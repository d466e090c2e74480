"""From a config to the typed arguments that the layers below take."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.data.cache import LocalCache
from multigrain_jax.data.eval_batches import EvalPlan
from multigrain_jax.data.reading import HostBatch, Reading
from multigrain_jax.data.sources.open import DataSet, open_split
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.watchdog import never
from multigrain_jax.distributed import HOSTS_FOLDER, gather_shares
from multigrain_jax.errors import InputError, printable
from multigrain_jax.evaluation.classification import require_classes
from multigrain_jax.evaluation.inputs import recorded_batches
from multigrain_jax.evaluation.sharing import plan_together
from multigrain_jax.models.multigrain import Backbone
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.runtime import images_at_once
from multigrain_jax.tasks.check import require_classifier
from multigrain_jax.tasks.photos import decoding_from_config


def open_labelled_split(
    config: Mapping[str, Any], split: str | None, opened: OpenedModel
) -> ImageSource:
    """A split whose images are labelled with a model's classes.

    Args:
        config: the configuration as nested dictionaries.
        split: which part of its data set.
        opened: the model.

    Raises:
        InputError: a model without classes, images without labels, or of other classes.
    """
    require_classifier(opened)
    names = opened.class_names or None
    source = open_split(data_set_from_config(config), split, names)
    require_classes(
        source,
        num_classes=opened.num_classes,
        class_names=opened.class_names,
        checkpoint=opened.checkpoint.path,
    )
    return source


def plan_from_config(
    config: Mapping[str, Any],
    source: ImageSource,
    *,
    backbone: Backbone,
    test_size: int,
) -> EvalPlan:
    """The plan of an evaluation by the keys that all configurations share.

    All hosts have to call it, and get the same.

    Args:
        config: the configuration as nested dictionaries.
        source: the images.
        backbone: the model's row of `BACKBONES`.
        test_size: S, in pixels: the configuration's, or one of several.
    """
    return plan_together(
        source,
        test_size=test_size,
        test_mode=config["test_mode"],
        batch_size=images_at_once(config["batch_size"], test_size),
        smallest_side=backbone.smallest_side,
        timeout_s=config["data_timeout_s"],
    )


def reading_from_config(
    config: Mapping[str, Any], *, give_up: Callable[[], bool] = never
) -> Reading:
    """How images are read, by the keys that all configurations share.

    Args:
        config: the configuration as nested dictionaries.
        give_up: whether to wait no longer; asked while no batch comes.
    """
    return Reading(
        num_workers=config["num_workers"],
        prefetch=config["prefetch_batches"],
        timeout_s=config["data_timeout_s"],
        give_up=give_up,
    )


def batches_from_config(
    config: Mapping[str, Any],
    source: ImageSource,
    plan: EvalPlan,
    *,
    workdir: Path | None,
    give_up: Callable[[], bool] = never,
) -> Generator[HostBatch]:
    """`recorded_batches` by the keys that all configurations share."""
    reading = reading_from_config(config, give_up=give_up)
    return recorded_batches(source, plan, workdir=workdir, reading=reading)


def readable_batches(
    config: Mapping[str, Any],
    source: ImageSource,
    plan: EvalPlan,
    *,
    workdir: Path | None,
) -> Generator[HostBatch]:
    """`batches_from_config`, for what is nothing without images.

    Raises:
        InputError: at the end, on all hosts, if none of them could read an image.
    """
    num_readable = num_bad = 0
    with contextlib.closing(
        batches_from_config(config, source, plan, workdir=workdir)
    ) as batches:
        for batch in batches:
            num_readable += int(np.sum(batch["mask"] & ~batch["bad"]))
            num_bad += int(np.sum(batch["bad"]))
            yield batch
    counts = gather_shares(np.array([num_readable, num_bad], np.int64))
    if others_bad := int(counts[1:, 1].sum()):
        print(
            f"the other hosts could not read {others_bad} images, which skipped.txt "
            f"below {HOSTS_FOLDER}/ lists"
        )
    if not counts[:, 0].any():
        raise InputError(
            f"none of the {len(source)} images could be read, among them "
            f"{printable(source.describe(0))}; skipped.txt says why"
        )


def data_set_from_config(config: Mapping[str, Any]) -> DataSet:
    """Where the images are, by the keys that all configurations share."""
    data = config["data"]
    return DataSet(
        source=data["source"],
        root=data["root"],
        list_file=data["list_file"],
        val_fraction=data["val_fraction"],
        num_images=data["num_images"],
        local_cache_dir=_local_cache(config),
        decoding=decoding_from_config(data, own_photos=data["source"] == "folder"),
        exclude=tuple(data["exclude"]),
        unreadable_folders="refuse",
        # A key of training alone.
        instances=data.get("instances"),
    )


def _local_cache(config: Mapping[str, Any]) -> LocalCache | None:
    """The copies of photos on the local disk, where there are to be any."""
    data = config["data"]
    if not data["local_cache_dir"]:
        return None
    gigabytes = data["local_cache_gb"]
    return LocalCache(
        data["local_cache_dir"],
        max_bytes=None if gigabytes is None else gigabytes * 1e9,
        compare=config["verify_cache"],
    )
