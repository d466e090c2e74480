"""What can be named: recipes with their keys, published weights."""

import json

import pytest

from multigrain_jax import commands
from multigrain_jax.recipe_files import recipes
from multigrain_jax.weights import PUBLISHED


def test_all_recipes_and_weights_are_listed(capsys):
    assert commands.main(["recipes"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [path.stem for path in recipes()]
    assert commands.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(PUBLISHED) + 1]] == [*PUBLISHED]


def test_the_keys_of_a_recipe_are_listed_with_their_words(capsys):
    assert commands.main(["recipes", "embed"]) == 0
    printed = capsys.readouterr().out
    assert "descriptor_dtype = 'float16'  # or \"float32\", twice as large" in printed


@pytest.mark.parametrize(
    "line", ["recipes", "weights", "recipes eval_retrieval:ukbench"]
)
def test_lists_are_one_object_of_json(line, capsys):
    """Those of keys are, of every recipe."""
    assert commands.main([*line.split(), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    if line == "weights":
        assert [*printed] == [*PUBLISHED]
        assert printed["joint_3B_0.5"]["test_mode"] == "rect"
    elif line == "recipes":
        assert [*printed] == [path.stem for path in recipes()]
        for name in printed:
            assert commands.main(["recipes", name, "--json"]) == 0
            keys = json.loads(capsys.readouterr().out)
            assert "task" in keys
    else:
        assert printed["benchmark"] == "ukbench"


def test_help_names_every_command(capsys):
    assert commands.main([]) == 0
    printed = capsys.readouterr().out
    for name in (*commands.tasks.COMMANDS, "run", "convert", "recipes", "weights"):
        assert f"\n  {name} " in printed
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("multigrain 0.")
