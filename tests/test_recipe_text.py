"""The tool that prints a recipe: every key once, with the words of configs/."""

import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from multigrain_jax.recipe_text import format_config, read_comments

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_of_every_recipe_is_printed_once(name):
    get_config = importlib.import_module(f"configs.{name}").get_config
    config = get_config(*(["folder"] if name == "eval_retrieval" else [])).to_dict()
    comments = read_comments(ROOT / "configs" / f"{name}.py")
    lines = format_config(config, comments, set()).splitlines()
    printed = [line.partition(" = ")[0] for line in lines if line[0] != "#"]
    assert len(printed) == len(set(printed))
    assert {"task"} <= set(printed)
    for key in printed:
        value = config
        for part in key.split("."):
            value = value[part]
        assert any(line.startswith(f"{key} = {value!r}") for line in lines)


@pytest.mark.parametrize("name", RECIPES)
def test_a_comment_stands_right_above_its_key(name):
    lines = (ROOT / "configs" / f"{name}.py").read_text(encoding="utf-8").splitlines()
    above = [
        line
        for line, below in itertools.pairwise(lines)
        if below.startswith("    del config.")
    ]
    assert [line for line in above if line.lstrip().startswith("#")] == []


def test_comments_order_and_overrides_are_shown():
    recipe = ("--config", "configs/folder.py:0", "--config.data.root=/x")
    done = subprocess.run(
        [sys.executable, "tools/show_config.py", *recipe],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["task = 'train'", "seed = 0"]
    assert "data.root = '/x'  # set on the command line" in lines
    number = lines.index("data.val_fraction = 0.15")
    assert lines[number - 1].startswith("# Of source")
    weight = "classification_weight = 0.0  # λ: 1 is cross-entropy alone"
    assert any(line.startswith(weight) for line in lines)
