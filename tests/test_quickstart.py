"""The quick start from the command line, shortened, on its real photographs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Half of the pixels, in every step.
SMALLER = "--config.test_size=40"


def run_main(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-m", "multigrain_jax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The workdir and the printed lines of a quick start of two epochs."""
    workdir = tmp_path_factory.mktemp("quickstart")
    done = run_main(
        "--config",
        "configs/quickstart.py",
        "--workdir",
        str(workdir),
        "--config.num_epochs=2",
        "--config.warmup_epochs=0.2",
        "--config.train_size=36",
        SMALLER,
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def read_results(workdir):
    return json.loads((workdir / "results.json").read_text())


@pytest.mark.slow
def test_the_quick_start_trains_evaluates_and_reports(quickstart):
    workdir, printed = quickstart
    results = read_results(workdir)
    names = {"top1", "top5", "class_map", "copy_recall_at_1", "copy_map"}
    scores = {name: results[f"test/{name}"] for name in names}
    assert all(0 <= score <= 1 for score in scores.values())
    # Two epochs already beat chance: 14 classes, 661 photos to find a copy among.
    assert scores["top1"] > 0.12
    assert scores["copy_recall_at_1"] > 0.1
    assert all(f"test/{name}" in printed for name in names)
    is_of = "val is 57 photos, looked at on the way; the run's scores are those of test"
    assert f"{is_of}\nscores of the 661 photos of test:" in printed
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 72
    assert 'src="http' not in page and 'href="http' not in page


@pytest.mark.slow
def test_the_second_and_the_third_step_follow(quickstart, tmp_path):
    first, _ = quickstart
    second, third = tmp_path / "p", tmp_path / "whiten"
    done = run_main(
        "--config",
        "configs/quickstart_p.py",
        "--workdir",
        str(second),
        f"--config.init_from={first}",
        "--config.images_per_class=6",
        SMALLER,
    )
    assert done.returncode == 0, done.stderr
    found = read_results(second)
    assert found["init_pooling_exponent"] == 3.0 != found["pooling_exponent"]
    assert 0.07 < found["after/top1"] <= 1
    done = run_main(
        "--config",
        "configs/quickstart_whiten.py",
        "--workdir",
        str(third),
        f"--config.init_from={second}",
        "--config.data.num_images=300",
        SMALLER,
    )
    assert done.returncode == 0, done.stderr
    found = read_results(third)
    assert found["num_images"] == 300
    # Folding keeps the classes' order, and the whitened embedding finds copies.
    assert found["after/top1"] == pytest.approx(found["before/top1"], abs=0.004)
    assert found["after/copy_recall_at_1"] > 0.1
    assert (third / "report.html").exists()


def test_mistakes_end_with_one_line_and_code_two(tmp_path):
    quickstart = ("--config", "configs/quickstart.py", "--workdir", str(tmp_path / "w"))
    for arguments, message in (
        ((*quickstart, "--config.batch_sise=3"), "batch_size"),
        ((*quickstart, "--config.num_repeats=1"), "num_repeats = 1"),
        (("--config", "configs/nothing.py"), "nothing.py"),
        ((), "--config is missing"),
    ):
        done = run_main(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert "error: " in done.stderr and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()
