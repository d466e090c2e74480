"""What training makes of crops on the device, as the configuration wants it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.ops.color import augment
from multigrain_jax.ops.erasing import random_erasing
from multigrain_jax.ops.mixing import VIEWS_OF_MIXED, mix_views
from multigrain_jax.train.step import MixViews, PrepareImages

# Another draw than the four that `augment` splits its key into.
ERASING_STREAM = 4


def make_prepare_images(config: Mapping[str, Any]) -> PrepareImages:
    """The augmentation of each crop for itself."""
    backbone = BACKBONES[config["backbone"]]
    prepare = partial(
        augment,
        augmentation=config["augmentation"],
        mean=backbone.mean,
        std=backbone.std,
    )
    probability = config["random_erasing"]
    if not probability:
        return prepare

    def prepare_and_erase(key: jax.Array, images: jax.Array) -> jax.Array:
        erase_key = jax.random.fold_in(key, ERASING_STREAM)
        return random_erasing(erase_key, prepare(key, images), probability=probability)

    return prepare_and_erase


def make_mix_views(config: Mapping[str, Any]) -> MixViews | None:
    """The mixtures of crops; None: there are none."""
    if not config["mixup_alpha"] and not config["cutmix_alpha"]:
        return None
    return partial(
        mix_views,
        mixup_alpha=config["mixup_alpha"],
        cutmix_alpha=config["cutmix_alpha"],
        group_size=config["batch_norm_group_size"],
        instance_group_size=(
            config["sampling_group_size"] if compares_instances(config) else None
        ),
    )


def mixing_problems(config: Mapping[str, Any]) -> list[str]:
    """Why a configuration that wants mixtures would have none, or none of use."""
    wanted = [key for key in ("mixup_alpha", "cutmix_alpha") if config[key]]
    if not wanted:
        return []
    alphas = ", ".join(f"{key} = {config[key]}" for key in wanted)
    if config["classification_weight"] == 0:
        return [
            f"{alphas} with classification_weight = 0.0: mixtures are for the "
            f"cross-entropy alone, which is not trained; set {' and '.join(wanted)} to "
            "0, or classification_weight above 0"
        ]
    group = min(config["batch_norm_group_size"], config["batch_size"])
    if group < 2:
        return [
            f"{alphas} with groups of one sample (batch_norm_group_size, or batch_size "
            "where that is smaller), in which there is no other to mix with; choose "
            "larger groups"
        ]
    in_a_row = views_of_instance(config)
    # The views of an instance stand side by side, and partners half a group apart.
    if in_a_row > group // 2:
        return [
            f"{alphas} with {in_a_row} views of an instance side by side (num_repeats, "
            "times data.photos_per_instance where instances are known) in groups of "
            f"{group} samples (batch_norm_group_size, or batch_size where that is "
            "smaller): the partner half a group further on would often be a view of "
            f"the same instance; choose groups of {2 * in_a_row} or more"
        ]
    views = min(in_a_row, config["sampling_group_size"], config["batch_size"])
    if compares_instances(config) and views < VIEWS_OF_MIXED:
        return [
            f"{alphas} with {views} views of an instance (num_repeats, or "
            "sampling_group_size where that is smaller): one of them is mixed, and two "
            f"must be left to be compared; set it to {VIEWS_OF_MIXED} or more, or "
            "classification_weight to 1 without koleo_weight, where all are mixed"
        ]
    return []


def views_of_instance(config: Mapping[str, Any]) -> int:
    """How many samples of one instance stand side by side."""
    data = config["data"]
    photos = data["photos_per_instance"] if data["instances"] else 1
    return photos * config["num_repeats"]


def compares_instances(config: Mapping[str, Any]) -> bool:
    """Whether a term of the loss tells instances apart."""
    return config["classification_weight"] != 1 or config["koleo_weight"] > 0
