"""The command line: help, and mistakes that end in one line with a suggestion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multigrain_jax import main

ROOT = Path(__file__).parents[1]


def parse(monkeypatch, *arguments, folder=ROOT):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main.parse_flags(["main", *arguments])
    return ended.value.code


def test_help_lists_every_task_and_recipe(monkeypatch, capsys):
    assert parse(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for name in main.TASKS:
        assert f"\n  {name} " in printed
    for path in (ROOT / "configs").glob("[a-z]*.py"):
        assert f"\n  {path.name} " in printed
    assert "\n  embed.py              Descriptors of one's own photos" in printed


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "multigrain_jax.main", "--help"],
        ["tools/show_config.py", "--config", "configs/quickstart.py"],
    ],
)
def test_a_reader_that_leaves_early_is_no_error(arguments, unbuffered):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/quickstrat.py"], "(did you mean 'quickstart'?)"),
        (["--config=configs/xyz.py"], "no file configs/xyz.py; configs has base.py, "),
        (["--config=nowhere/a.py"], "nowhere has no recipes: run this in a clone"),
        (["--config=configs/joint_3B.py:x"], "ValueError: could not convert string"),
        (
            ["--config=configs/eval_retrieval.py:holiday"],
            "for the argument 'holiday': benchmark: found 'holiday', expected one",
        ),
        (
            ["--config", "configs/folder.py", "--config.data.rooot=x"],
            "config.data has no key 'rooot' (did you mean 'root'?); its keys are ",
        ),
        (
            ["--config=configs/search.py", "--config.score_normalization.wait=x"],
            "config.score_normalization has no key 'wait'",
        ),
        (["--config=configs/base.py", "--config.seed.x=1"], "config.seed is one value"),
        (["--confg=configs/base.py"], "Did you mean: config ?"),
        ([], "--config is missing"),
    ],
)
def test_mistakes_are_one_line_with_a_suggestion(
    monkeypatch, capsys, arguments, message
):
    assert parse(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed
    assert "Traceback" not in printed and printed.count("\n") == 1


def test_a_recipe_elsewhere_finds_the_ones_it_builds_on(monkeypatch, tmp_path, capsys):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    away = tmp_path / "away"
    away.mkdir()
    arguments = ["--config", f"{tmp_path}/configs/joint_1B.py", "--config.nothing=1"]
    assert parse(monkeypatch, *arguments, folder=away) == 2
    assert "config has no key 'nothing'" in capsys.readouterr().err
    assert str(tmp_path) in sys.path
