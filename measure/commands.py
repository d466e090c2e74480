"""What measurements of faults share: photos, the real command, small disks."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
# A training of the smallest network that writes all it can write, as often as it can.
TRAINING: dict[str, Any] = {
    "backbone": "tiny",
    "data.source": "folder",
    "data.val_split": "val",
    "batch_size": 16,
    "train_size": 33,
    "test_size": 33,
    "log_every_steps": 1,
    "num_workers": 2,
    "learning_rate": 0.01,
}


def write_photos(root: Path, count: int, *, side: int = 96, seed: int = 0) -> Path:
    """So many photos of noise, in three classes, below a folder; returns it."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        folder = root / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    return root


def command_line(recipe: str, workdir: Path, settings: Mapping[str, Any]) -> list[str]:
    """The words of a command: a recipe of configs/, and keys by their dotted names."""
    name, colon, argument = recipe.partition(":")
    command = [sys.executable, "-m", "multigrain_jax.main"]
    command += ["--config", f"configs/{name}.py{colon}{argument}"]
    command += ["--workdir", str(workdir)]
    return command + [f"--config.{key}={value}" for key, value in settings.items()]


def environment(clone: Path, **more: str) -> dict[str, str]:
    """The variables with which a clone's own code runs, on one CPU device."""
    paths = [more.pop("PYTHONPATH", ""), str(clone)]
    path = os.pathsep.join(filter(None, paths))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **more}


@contextlib.contextmanager
def small_disk(folder: Path, kind: str, *, size: int) -> Iterator[Path]:
    """A new file system of a size, by root on Linux.

    Args:
        folder: where it is mounted; made.
        kind: "tmpfs" (in memory) or "ext4" (in a file beside the folder).
        size: in bytes.
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    image = folder.with_suffix(".img")
    if kind == "ext4":
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        mount = ["mount", "-o", "loop", str(image), str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        # Processes that end may still be using it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        image.unlink(missing_ok=True)
