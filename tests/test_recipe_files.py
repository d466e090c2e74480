"""Recipes are found by their names from everywhere, and import each other."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import find_recipe, load_recipe, recipes

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("given", ["joint_3B", "joint_3B.py", "configs/joint_3B.py"])
def test_a_recipe_of_the_package_is_found_from_everywhere(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(f"{given}:0.5") == f"{ROOT}/configs/joint_3B.py:0.5"


def test_a_file_comes_before_a_recipe_of_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("embed.py").touch()
    assert find_recipe("embed.py") == "embed.py"
    assert find_recipe("embed") == f"{ROOT}/configs/embed.py"
    # One without a suffix is none: a word is the name of a recipe.
    for name in ("embed", "mine"):
        Path(name).touch()
    assert find_recipe("embed") == f"{ROOT}/configs/embed.py"
    assert (find_recipe("./embed:x"), find_recipe("mine")) == ("./embed:x", "mine")
    with pytest.raises(InputError, match="there is no file other/embed; the recipes"):
        find_recipe("other/embed")


@pytest.mark.parametrize("name", ["modern", "embed", "eval_retrieval"])
def test_an_empty_argument_is_none(name):
    found = find_recipe(f"configs/{name}.py:")
    with pytest.raises(InputError, match=r"behind the colon of .*, expected an argum"):
        load_recipe(found)


def test_what_lies_beside_a_file_of_ones_own_is_not_imported(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = list(sys.path)
    own = tmp_path / "mine" / "own.py"
    own.parent.mkdir()
    own.write_text(
        "from configs import embed\ndef get_config():\n  return embed.get_config()\n"
    )
    assert load_recipe(str(own)).task == "embed" and sys.path == known
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.py").touch()
    assert load_recipe(str(own)).task == "embed"
    assert sys.path == [str(tmp_path), *known]


def test_an_installed_package_brings_its_recipes_under_its_own_name(tmp_path):
    """As in a wheel: no `configs` beside the package, its folder not on the path."""
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    package = shutil.copytree(
        ROOT / "multigrain_jax", site / "multigrain_jax", ignore=ignored
    )
    shutil.copytree(ROOT / "configs", package / "recipes", ignore=ignored)
    code = (
        "import json, sys\n"
        "from multigrain_jax.recipe_files import find_recipe, load_recipe\n"
        "tasks = {name: load_recipe(find_recipe(name)).task for name in sys.argv[1:]}\n"
        "paths = [p for p in sys.path if p.endswith('multigrain_jax')]\n"
        "print(json.dumps([tasks, paths]))\n"
    )
    names = [path.stem for path in recipes() if path.stem != "eval_retrieval"]
    (tmp_path / "own.py").write_text(
        "from configs import embed\ndef get_config():\n  return embed.get_config()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names, "own.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    tasks, paths = json.loads(done.stdout)
    assert tasks["joint_3B"] == "train" and tasks["own.py"] == "embed"
    assert set(tasks) == {*names, "own.py"} and paths == []
