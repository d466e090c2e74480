"""The real command where the system, or the user's environment, is unusual."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "backbone": "tiny",
    "data.source": "folder",
    "data.val_split": None,
    "batch_size": 16,
    "num_epochs": 1,
    "epoch_len_factor": 0.5,
    "train_size": 33,
    "test_size": 33,
    "validate_first": False,
}


def train(root, workdir, *, before="", settings=None, **variables):
    settings = {**SETTINGS, "data.root": root, **(settings or {})}
    command = f"{before} exec {sys.executable} -m multigrain_jax.main"
    command += f" --config configs/base.py --workdir {workdir}"
    command += "".join(f" --config.{key}={value}" for key, value in settings.items())
    return subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_platform_without_its_plugin_is_one_line(photos, tmp_path):
    done = train(photos, tmp_path / "run", JAX_PLATFORMS="cuda")
    if "devices: " in done.stdout:
        pytest.skip("this machine has the plugin")
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=cuda: no devices")
    assert "'.[cuda]'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sixty_four_open_files_are_enough(photos, tmp_path):
    """Ranks are not promoted either, as everywhere in the tests."""
    assert os.environ["JAX_NUMPY_RANK_PROMOTION"] == "raise"
    done = train(
        photos,
        tmp_path / "run",
        before="ulimit -n 64;",
        settings={"num_workers": 2, "data.val_split": "val"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the limit is 64 (ulimit -n): images are read with threads" in done.stdout
    assert (tmp_path / "run" / "results.json").exists()
