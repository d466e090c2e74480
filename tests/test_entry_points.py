"""What is started by hand: it outlives its readers, and imports what it needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multigrain_jax.commands import lists
from multigrain_jax.commands.tasks import COMMANDS

ROOT = Path(__file__).parents[1]
# Timed in surroundings that may have PyTorch alone.
WITHOUT_THE_PACKAGE = {"measure/pytorch_step.py"}
STARTED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("multigrain_jax", "tools", "measure")
    for path in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__":' in path.read_text("utf-8")
)


@pytest.mark.parametrize("path", sorted(set(STARTED) - WITHOUT_THE_PACKAGE))
def test_what_is_started_outlives_its_readers_from_the_first_line_on(path):
    *_, last = ast.parse((ROOT / path).read_text("utf-8")).body
    assert isinstance(last, ast.If)
    started = last.body
    if path == "multigrain_jax/__main__.py":  # also of the console script
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
        started = main.body[1:]
    assert ast.unparse(started[0]) == "outlive_readers()"


# Lines of commands that only print -> their exit codes.
PRINTING = {
    "--help": 0,
    "--version": 0,
    **{f"{name} --help": 0 for name in (*COMMANDS, "run", *lists.LISTS)},
    "recipes": 0,
    "recipes folder": 0,
    "recipes folder --json": 0,
    "weights": 0,
    "convert --help": 0,
    "embed photos --dry-run": 0,
    "embed": 2,
    "run": 2,
    "nothing": 2,
}
WITH_NETWORKS = {"weights", "convert --help"}


@pytest.mark.parametrize("line", PRINTING)
def test_what_prints_for_head_ends_as_it_does_for_a_reader(line):
    done = run_unread(["-m", "multigrain_jax", *line.split()], closed="stdout")
    assert done.returncode == PRINTING[line]
    said = done.stderr.splitlines()
    assert len(said) == (PRINTING[line] == 2 and line != "run")
    assert all(words.startswith("error: ") for words in said)


@pytest.mark.parametrize("line", ["--help", "nothing"])
def test_errors_that_nobody_reads_are_none(line):
    done = run_unread(["-m", "multigrain_jax", *line.split()], closed="stderr")
    assert done.returncode == PRINTING[line]
    assert bool(done.stdout) == (line == "--help")


def test_what_only_prints_imports_no_network():
    """It answers in a tenth of a second; with JAX in two."""
    code = (
        "import sys\n"
        "from multigrain_jax import commands\n"
        "for line in sys.argv[1:]:\n"
        "    commands.main(line.split())\n"
        "print(sorted({'jax', 'orbax', 'tensorflow'} & {*sys.modules}))\n"
    )
    lines = sorted(set(PRINTING) - WITH_NETWORKS)
    words = [sys.executable, "-c", code, *lines]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


RUN = """
import sys
from pathlib import Path
from ml_collections import ConfigDict
from multigrain_jax.announce import run_announced
from multigrain_jax.terminal import outlive_readers
outlive_readers()
def run(config, workdir):
    for number in range(5000):
        print("step", number, flush=True)
    (workdir / "done").touch()
    return {}
config, workdir = ConfigDict({"task": "whiten"}), Path(sys.argv[1])
run_announced(run, config, workdir, what="It.", quiet=False, as_json=False)
"""


def test_a_run_that_nobody_reads_goes_on_and_says_so_once(tmp_path):
    done = run_unread(["-c", RUN, str(tmp_path)], closed="stdout")
    assert (done.returncode, (tmp_path / "done").exists()) == (0, True)
    unread = f"nobody reads the output any more; the run goes on, in {tmp_path}\n"
    assert done.stderr == unread
    # Where there is nobody to be told, nothing is.
    (tmp_path / "done").unlink()
    command = '"$0" -c "$1" "$2" 2>&1 | head -1'
    words = ["bash", "-c", command, sys.executable, RUN, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (tmp_path / "done").exists()
    assert done.stdout == f"whiten: It. Results go to {tmp_path}\n"


def run_unread(words: list[str], *, closed: str) -> subprocess.CompletedProcess[str]:
    """Python with these words, one of whose streams nobody reads."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    other = "stderr" if closed == "stdout" else "stdout"
    try:
        return subprocess.run(
            [sys.executable, *words],
            **{closed: write_end, other: subprocess.PIPE},
            cwd=ROOT,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
