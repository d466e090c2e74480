"""A small run for the fault tests: the tiny backbone, a few steps, one fake device."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import base

CLASSES = ("disc", "stripes", "dots")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """`train` and `val` of three classes of noisy pictures."""
    root = tmp_path_factory.mktemp("photos")
    make_photos(root)
    return root


def make_photos(root: Path) -> None:
    """Fill a folder with 33 training and 6 validation pictures."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 2)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 48, 3), np.uint8)
                pixels[::2, :, label] += 120
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def make_config():
    """A function of the photos' folder and of changes to the configuration."""
    return small_config


def small_config(root: Path, **changes):
    """Five steps an epoch, two epochs; groups of three are cut by batches of 16."""
    config = base.get_config()
    config.update(
        {
            "backbone": "tiny",
            "num_repeats": 3,
            "classification_weight": 0.5,
            "pooling_exponent": 3.0,
            "train_size": 33,
            "test_size": 33,
            "batch_size": 16,
            "batch_norm_group_size": 8,
            "sampling_group_size": 16,
            "num_epochs": 2,
            "epoch_len_factor": 2.4,
            "learning_rate": 0.05,
            "learning_rate_drop_epochs": (0,),
            "learning_rate_drop_factors": (0.1,),
            "log_every_steps": 1,
            "keep_every_epochs": 100,
        }
    )
    config.data.update({"source": "folder", "root": str(root)})
    config.data.val_split = None
    config.update(changes)
    return config
