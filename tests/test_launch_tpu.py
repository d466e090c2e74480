"""The launcher of a slice of TPUs, with a `gcloud` that only plays its part."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from multigrain_jax import main

ROOT = Path(__file__).parent.parent
# `codes` holds the exit codes of trainings to come (-1: the launcher is told to go),
# `log` what was asked.
GCLOUD = """#!/bin/bash
cd "$(dirname "$0")"
printf '%s\\n' "$*" | tr '\\n' ' ' >>log; echo >>log
case "$*" in
    *"storage ls"*) test -e ended ;;
    *"tpu-vm describe"*) test -e slice ;;
    *"tpu-vm create"*) test ! -e full && touch slice || { rm full; exit 1; } ;;
    *"tpu-vm delete"*) rm slice ;;
    *"multigrain_jax.main"*)
        code=$(head -1 codes); sed -i 1d codes
        [ "$code" -ge 0 ] || { kill -TERM "$PPID"; exit 3; }
        [ "$code" -ne 0 ] || touch ended
        exit "$code" ;;
esac
"""
RECIPE = ["--config", "configs/joint_3B.py:0.5", "--config.data.root=gs://bucket/a b"]


@pytest.fixture
def launch(tmp_path):
    """Run the launcher with trainings of some exit codes; what it asked for."""

    def run(*codes: int, full: bool = False) -> tuple[int, list[str], str]:
        (tmp_path / "gcloud").write_text(GCLOUD)
        (tmp_path / "gcloud").chmod(0o755)
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        if full:
            (tmp_path / "full").touch()
        names = ("NAME", "ZONE", "TYPE", "VERSION", "CODE")
        done = subprocess.run(
            [ROOT / "tools" / "launch_tpu.sh", *RECIPE],
            env={
                **os.environ,
                **{name: name.lower() for name in names},
                "RUN": "gs://bucket/run",
                "PAUSE_S": "0",
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (tmp_path / "slice").exists() == (-1 in codes)
        asked = (tmp_path / "log").read_text().splitlines()
        return done.returncode, asked, done.stdout + done.stderr

    return run


def count(asked: list[str], words: str) -> int:
    return sum(words in line for line in asked)


def test_it_goes_on_until_the_run_has_ended(launch):
    code, asked, told = launch(3, 1, 0)
    assert code == 0
    assert [count(asked, f"tpu-vm {w}") for w in ("create", "delete")] == [3, 3]
    assert count(asked, "multigrain_jax.main") == 3
    assert told.endswith("launch: done, see gs://bucket/run\n")


def test_one_that_is_told_to_go_says_that_the_slice_stays(launch):
    code, asked, told = launch(-1)
    assert (code, count(asked, "tpu-vm delete")) == (130, 0)
    assert "tpu-vm delete name --zone=zone removes it" in told


def test_what_no_try_mends_ends_it(launch):
    code, asked, told = launch(2)
    assert (code, count(asked, "tpu-vm create")) == (1, 1)
    assert "bad input" in told


def test_tries_that_end_at_once_are_not_paid_for_without_end(launch):
    code, asked, told = launch(1, 1, 1, 0)
    assert (code, count(asked, "tpu-vm create")) == (1, 3)
    assert "3 tries ended at once" in told


def test_where_there_is_no_room_it_waits(launch):
    code, asked, _ = launch(0, full=True)
    assert (code, count(asked, "tpu-vm create")) == (0, 2)


def test_its_command_is_one_of_this_package(launch):
    _, asked, _ = launch(0)
    (line,) = (line for line in asked if "multigrain_jax.main" in line)
    words = shlex.split(line.partition("-m multigrain_jax.main")[2])
    assert words[:3] == RECIPE
    assert words[-1] == "--workdir=gs://bucket/run"
    words[1] = str(ROOT / words[1])
    assert main.check_config_flags(["main", *words]).task == "train"
