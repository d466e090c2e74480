"""Refuses configurations that contradict themselves, before anything is built."""

from collections.abc import Mapping
from typing import Any

from PIL import features

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.data.simd_resize import crop_resizer, resolve_crop_resize
from multigrain_jax.data.sources.instances import LIST, is_instance_rule
from multigrain_jax.data.train_batches import HOST_AUGMENTATIONS
from multigrain_jax.errors import InputError
from multigrain_jax.losses.joint import INSTANCE_LOSSES
from multigrain_jax.losses.sampling import NEGATIVE_SAMPLINGS
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.ops.color import AUGMENTATIONS
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    choice_problems,
    data_problems,
    dtype_problems,
    refuse,
)
from multigrain_jax.tasks.idle import (
    idle_of_training,
    idle_problems,
    why_no_margin_loss,
)
from multigrain_jax.tasks.train_views import (
    compares_instances,
    mixing_problems,
    views_of_instance,
)
from multigrain_jax.train.optimizer import LEARNING_RATE_SCHEDULES, OPTIMIZERS

# What reads the images: Grain by random access, or tf.data in the files' order.
DATA_BACKENDS = ("grain", "tfdata")


def check_train_config(config: Mapping[str, Any], *, num_devices: int) -> None:
    """Check a training configuration.

    Args:
        config: the configuration as nested dictionaries.
        num_devices: how many devices share a batch.

    Raises:
        InputError: one message that lists every problem with its remedy.
    """
    problems = [*_choice_problems(config), *number_problems(config)]
    # What is asked of several keys together makes sense of sound ones.
    refuse(
        problems
        or [
            *_drop_problems(config),
            *_loss_problems(config),
            *mixing_problems(config),
            *idle_problems(config, idle_of_training(config)),
            *_list_problems(config["data"]),
            *_instance_problems(config),
            *_batch_problems(config, num_devices),
        ]
    )


def _choice_problems(config: Mapping[str, Any]) -> list[str]:
    choices = {
        "backbone": tuple(BACKBONES),
        "augmentation": tuple(AUGMENTATIONS),
        "instance_loss": INSTANCE_LOSSES,
        "negative_sampling": NEGATIVE_SAMPLINGS,
        "optimizer": OPTIMIZERS,
        "learning_rate_schedule": LEARNING_RATE_SCHEDULES,
        "test_mode": TEST_MODES,
    }
    return [
        *choice_problems(config, choices),
        *dtype_problems(config),
        *data_problems(config["data"]),
        *_backend_problems(config),
        *_resize_problems(config),
        *_font_problems(config),
    ]


def _backend_problems(config: Mapping[str, Any]) -> list[str]:
    data = config["data"]
    if data["backend"] not in DATA_BACKENDS:
        return [
            f"data.backend: found {data['backend']!r}, expected one of "
            f"{', '.join(DATA_BACKENDS)}"
        ]
    if data["backend"] == "grain":
        return []
    problems = []
    if data["source"] != "tfds":
        problems.append(
            f'data.backend = "tfdata" with data.source = {data["source"]!r}: it reads '
            'what TFDS prepared as TFRecord files; set data.source to "tfds", or '
            'data.backend to "grain"'
        )
    if data["decode"] == "fast":
        problems.append(
            'data.backend = "tfdata" with data.decode = "fast": TensorFlow decodes its '
            'photos, whole; set data.decode to "exact", or data.backend to "grain"'
        )
    if (name := config["augmentation"]) in HOST_AUGMENTATIONS:
        problems.append(
            f'data.backend = "tfdata" with augmentation = "{name}", whose operations '
            "are Pillow's: convert the data set to array_record and set data.backend "
            'to "grain"'
        )
    return problems


def _resize_problems(config: Mapping[str, Any]) -> list[str]:
    try:
        crop_resizer(resolve_crop_resize(config["crop_resize"]))
    except InputError as error:
        return [str(error)]
    if config["crop_resize"] == "simd" and config["data"]["backend"] == "tfdata":
        return [
            'crop_resize = "simd" with data.backend = "tfdata", which resizes by '
            'TensorFlow: set crop_resize to "auto"'
        ]
    return []


def _font_problems(config: Mapping[str, Any]) -> list[str]:
    if config["augmentation"] == "copies" and not features.check("freetype2"):
        return [
            'augmentation = "copies" draws letters, and this Pillow was built without '
            "FreeType: install its wheel (pip install --force-reinstall pillow)"
        ]
    return []


def _drop_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    epochs, factors = (
        len(config[f"learning_rate_drop_{name}"]) for name in ("epochs", "factors")
    )
    if epochs != factors:
        problems.append(
            f"learning_rate_drop_epochs has {epochs} values and "
            f"learning_rate_drop_factors {factors}: give one factor for each epoch"
        )
    return problems


def _loss_problems(config: Mapping[str, Any]) -> list[str]:
    if views_of_instance(config) == 1 and config["classification_weight"] != 1:
        loss = "InfoNCE" if config["instance_loss"] == "infonce" else "margin loss"
        return [
            f"num_repeats = 1 with classification_weight = "
            f"{config['classification_weight']}: with one repetition there are no "
            f"positives and no {loss}; set classification_weight to 1 or "
            "num_repeats to 2 or more"
        ]
    return [*_infonce_problems(config), *_group_problems(config)]


def _infonce_problems(config: Mapping[str, Any]) -> list[str]:
    if config["instance_loss"] == "infonce" and config["classification_weight"] == 1:
        return [
            'instance_loss = "infonce" with classification_weight = 1.0, which leaves '
            "it no weight: set classification_weight below 1, or instance_loss to "
            '"margin"'
        ]
    return []


def _group_problems(config: Mapping[str, Any]) -> list[str]:
    """What compares instances, in groups that may have a single one."""
    wanted = [
        *(["koleo_weight"] if config["koleo_weight"] else []),
        *(["instance_loss"] if config["instance_loss"] == "infonce" else []),
        # The margin loss of a group without negatives is 0.
        *(["classification_weight"] if not why_no_margin_loss(config) else []),
    ]
    group = min(config["sampling_group_size"], config["batch_size"])
    if group > views_of_instance(config):
        return []
    photos = ""
    if config["data"]["instances"]:
        photos = (
            f" and data.photos_per_instance = {config['data']['photos_per_instance']}"
        )
    return [
        f"{key} = {config[key]!r} with groups of {group} samples (sampling_group_size, "
        f"or batch_size where that is smaller) and num_repeats = "
        f"{config['num_repeats']}{photos}: a group may hold one instance, and there is "
        "no other to compare with; choose larger groups"
        for key in wanted
    ]


def _list_problems(data: Mapping[str, Any]) -> list[str]:
    listed = data["source"] == "folder" and data["list_file"]
    if not listed or as_path(listed).is_dir():
        return []  # a folder of lists has one for each split
    if data["val_split"] and not data["val_fraction"]:
        return [
            f"data.list_file = {data['list_file']!r} has no parts, and the validation "
            "would see the training images; set data.val_fraction to hold a share "
            "out, or data.val_split to None"
        ]
    return []


def _instance_problems(config: Mapping[str, Any]) -> list[str]:
    data = config["data"]
    rule, source = data["instances"], data["source"]
    if rule is None:
        return []
    if source != "folder":
        return [
            f"data.instances = {rule!r} with data.source = {source!r}: instances are "
            'known by folders or a list file; set data.source to "folder", or '
            "data.instances to None"
        ]
    if not is_instance_rule(rule):
        return [
            f"data.instances: found {rule!r}, expected the number of a level of "
            f"folders (1 is the class's), {LIST!r} or None"
        ]
    if rule == LIST and not data["list_file"]:
        return [
            f"data.instances = {rule!r} without data.list_file, in whose third column "
            "they would stand; give it with --config.data.list_file=FILE"
        ]
    if not compares_instances(config):
        return [
            f"data.instances = {rule!r} with classification_weight = 1.0 and "
            "koleo_weight = 0: no loss tells instances apart; set "
            "classification_weight below 1, or data.instances to None"
        ]
    return []


def _batch_problems(config: Mapping[str, Any], num_devices: int) -> list[str]:
    batch_size = config["batch_size"]
    problems = []
    for key in ("batch_norm_group_size", "sampling_group_size"):
        group = config[key]
        # A batch smaller than the group is one group.
        if 0 < group < batch_size and batch_size % group:
            problems.append(
                f"{key} = {group} does not divide batch_size = {batch_size}; choose "
                "one that does (or one at least as large: the batch is one group)"
            )
    if batch_size % num_devices:
        problems.append(
            f"batch_size = {batch_size} does not divide over {num_devices} devices; "
            "choose a multiple"
        )
    if config["init_from"] and config["pretrained_backbone"]:
        problems.append(
            "init_from and pretrained_backbone are both given: keep one of them"
        )
    return problems
