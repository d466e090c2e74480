"""The real command where the system, or the user's environment, is unusual."""

import os
import shutil
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


def train(root, workdir, *, before="", after="", settings=None, **variables):
    settings = {**SETTINGS, "data.root": root, **(settings or {})}
    command = f"{before} exec {sys.executable} -m multigrain_jax.main"
    command += f" --config configs/base.py --workdir {workdir}"
    command += "".join(f" --config.{key}={value}" for key, value in settings.items())
    command += f" {after}"
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


def test_programs_that_are_not_compiled_are_refused(photos, tmp_path):
    done = train(photos, tmp_path / "run", JAX_DISABLE_JIT="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_DISABLE_JIT: found it set, expected")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_c_locale_no_home_an_odd_clock_and_odd_names_are_enough(photos, tmp_path):
    """All at once, and without a standard error."""
    odd = tmp_path / "100% of #1 {x} $HOME"
    shutil.copytree(photos, odd)
    photo = next((odd / "train").glob("*/*"))
    photo.rename(photo.with_name("50 % ä # \\ '.png"))
    for path in [*odd.rglob("*"), odd]:
        os.utime(path, (-5e8, 4e9))  # read in 1954, written in 2096
    workdir = tmp_path / "a % run # of {y}"
    variables = {"LC_ALL": "C", "LANG": "C", "TZ": "Nowhere/Else"}
    variables |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = train(
        f"'{odd}'",
        f"'{workdir}'",
        before="unset HOME XDG_CACHE_HOME;",
        after="2>&-",
        settings={"data.val_split": "val"},
        MULTIGRAIN_CACHE=str(tmp_path / "cache"),
        **variables,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert (workdir / "results.json").exists()
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert len(names) == 1
