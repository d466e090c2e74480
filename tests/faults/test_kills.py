"""SIGKILL at random moments, some of them inside a save."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "kill_driver.py"


def kill_runs(photos, output, kills, seed):
    """Run the driver; it fails if a run ends with other numbers. Returns the kills."""
    subprocess.run(
        [sys.executable, DRIVER, photos, output, str(kills), str(seed)],
        check=True,
        timeout=60 * kills + 300,
    )
    return json.loads((output / "kills.json").read_text())["kills"]


@pytest.mark.slow
def test_runs_that_are_killed_end_bit_equal(photos, tmp_path):
    records = kill_runs(photos, tmp_path, 20, seed=1)
    assert len(records) == 20
    assert sum(record["in_save"] for record in records) >= 5
    # Five steps between the saves, and five more while one is written.
    assert all(record["reached"] - record["saved"] <= 10 for record in records)


@pytest.mark.long
def test_a_hundred_kills_end_bit_equal(photos, tmp_path):
    assert len(kill_runs(photos, tmp_path, 100, seed=2)) == 100
