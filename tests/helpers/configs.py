"""Small configurations for tests: the tiny backbone, small images, few steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base

# What makes any recipe of training short, whatever it is about.
SHORT_TRAINING: dict[str, Any] = {
    "backbone": "tiny",
    "train_size": 33,
    "test_size": 33,
    "batch_size": 24,
    "batch_norm_group_size": 24,
    "sampling_group_size": 24,
    "num_epochs": 1,
    "warmup_epochs": 0.0,
}
JOINT_TRAINING: dict[str, Any] = {
    **SHORT_TRAINING,
    "batch_norm_group_size": 8,
    "num_epochs": 2,
    "num_repeats": 3,
    "classification_weight": 0.5,
    "pooling_exponent": 3.0,
    "learning_rate": 0.05,
    "log_every_steps": 1,
    "keep_every_epochs": 100,
}


def small_train_config(root: str | Path, **changes: Any) -> ConfigDict:
    """A joint training on a folder of photos, of two epochs of batches of 24.

    Args:
        root: the folder, with parts `train` and `val`.
        changes: other values by key; of nested keys a dictionary.
    """
    config = base.get_config()
    config.update({**JOINT_TRAINING, "data": {"source": "folder", "root": str(root)}})
    config.update(changes)
    return config


def fault_config(root: str | Path, **changes: Any) -> ConfigDict:
    """The training of the tests of faults, on 33 photos, without validation.

    Five steps an epoch, two epochs, between which the learning rate drops; groups of
    three are cut by batches of 16.
    """
    config = small_train_config(
        root,
        batch_size=16,
        sampling_group_size=16,
        epoch_len_factor=2.4,
        learning_rate_drop_epochs=(0,),
        learning_rate_drop_factors=(0.1,),
        data={"val_split": None},
    )
    config.update(changes)
    return config


def small_eval_config(
    get_config: Callable[[], ConfigDict],
    root: str | Path,
    checkpoint: str | Path,
    **changes: Any,
) -> ConfigDict:
    """A recipe of evaluation on a folder of photos, of small batches of small images.

    Args:
        get_config: the recipe's.
        root: the folder.
        checkpoint: the model to evaluate.
        changes: other values by key; of nested keys a dictionary.
    """
    config = get_config()
    config.init_from = str(checkpoint)
    config.data.root = str(root)
    if "source" in config.data:  # a benchmark has files of its own
        config.data.source = "folder"
    config.batch_size = 8
    if "test_size" in config:
        config.test_size = 48
    config.update(changes)
    return config
