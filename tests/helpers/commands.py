"""What the real command is tried with: its surroundings, a training, small disks."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Of one device, as a user's machine has it.
ENVIRONMENT = {**os.environ, "XLA_FLAGS": ""}
# A training of the smallest network, beside which photos are to be given.
TRAINING = {
    "backbone": "tiny",
    "data.source": "folder",
    "data.val_split": "val",
    "batch_size": 16,
    "train_size": 33,
    "test_size": 33,
    "log_every_steps": 1,
}


@contextlib.contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[Path]:
    """A new file system of a size such as "2m", where one can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
