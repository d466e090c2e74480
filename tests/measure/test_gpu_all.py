"""measure/gpu_all.sh with a `python` that only says what it was asked to run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.scripts import check_understood

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/bash
here=$(dirname "$0")
printf '%q ' "${XLA_FLAGS-}" "$@" >>"$here/asked"; echo >>"$here/asked"
case "$*" in
    $FAILS) echo "the last line" >&2; echo >&2; exit 3 ;;
    $HANGS) echo "half done"; sleep 60 ;;
esac
echo "this package  1.0 images/s"
"""


@pytest.fixture
def measure(tmp_path):
    """Run it; its exit code, [(XLA's flags, script, arguments)], and what it told."""

    def run(*flags: str, gpu: bool = True, fails: str = "", hangs: str = ""):
        (tmp_path / "asked").write_text("")
        for name, text in (
            ("python", PYTHON),
            ("nvidia-smi", f"#!/bin/bash\necho a GPU; exit {int(not gpu)}\n"),
        ):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            [ROOT / "measure" / "gpu_all.sh", *flags],
            env={
                **{k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
                "FAILS": fails,
                "HANGS": hangs,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        asked = map(shlex.split, (tmp_path / "asked").read_text().splitlines())
        commands = [(flags, Path(script).stem, rest) for flags, script, *rest in asked]
        return done.returncode, commands, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("flags", [[], ["--trial"]], ids=["a GPU", "a trial"])
def test_its_commands_are_understood(flags, measure, monkeypatch):
    code, commands, told = measure(*flags)
    assert code == 0, told
    for _, name, arguments in commands:
        check_understood(name, arguments, monkeypatch)
    counts = [len(commands), told.count("1.0 images/s\n") // 2]
    assert counts == [9, 9]  # once as it came, once in the summary
    limits = [int(n) for n in re.findall("at most ([0-9]+) s", told)]
    assert limits == sorted(limits) and 570 < limits[-1] <= 590
    small = [" ".join(arguments) for *_, arguments in commands]
    assert any("512" in each for each in small) == (not flags)


def test_xla_knows_its_flags(measure):
    _, commands, _ = measure("--trial")
    flags = [flags for flags, *_ in commands if flags]
    assert [len(each.split()) for each in flags] == [1, 1, 1]
    known = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
    )
    assert known.returncode == 0, known.stderr


def test_a_part_that_fails_or_hangs_is_told_and_the_others_go_on(measure):
    first = "measure/step.py"
    code, commands, told = measure(
        "--seconds", "40", hangs=first, fails="measure/search.py"
    )
    assert (code, len(commands)) == (2, 9), told
    _, _, summary = told.partition("== summary\n")
    rows = summary.splitlines()
    assert len(rows) == 9
    # Its share, less what the shell has begun to count by then: bash's whole seconds.
    limit = re.search("at most ([0-9]+) s", told)[1]
    assert 6 <= int(limit) <= 8
    assert rows[0].endswith(f"not run: stopped after {limit} s; half done")
    assert rows[4].endswith("not run: the last line")
    assert [row.endswith("1.0 images/s") for row in rows].count(True) == 7
    assert told.count("not run: ") == 4


@pytest.mark.parametrize("flags", [["--tiny"], ["--seconds"], ["--seconds", "1.5"]])
def test_what_it_does_not_know_it_refuses(flags, measure):
    code, commands, told = measure(*flags)
    assert (code, commands) == (64, [])
    assert told.endswith("expected --trial or --seconds N\n")


def test_without_a_gpu_it_runs_nothing(measure):
    code, commands, told = measure(gpu=False)
    assert (code, commands) == (64, [])
    assert told.endswith("found no GPU, expected one; --trial runs on a CPU\n")
