"""What can be named: recipes with their keys, published weights."""

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


def test_help_names_every_command(capsys):
    assert commands.main([]) == 0
    printed = capsys.readouterr().out
    for name in (*commands.tasks.COMMANDS, "run", "convert", "recipes", "weights"):
        assert f"\n  {name} " in printed
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("multigrain 0.")
