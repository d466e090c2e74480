"""The photos that the fault tests train on."""

from pathlib import Path

import pytest
from helpers.photos import write_noise_photos

CLASSES = ("disc", "stripes", "dots")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """`train` with 33 and `val` with 6 photos of three classes."""
    root = tmp_path_factory.mktemp("photos")
    write_noise_photos(root / "train", CLASSES, count=11)
    write_noise_photos(root / "val", CLASSES, count=2, seed=1)
    return root
