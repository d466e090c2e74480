"""The recipes: files of `configs/`, or those that come with the installed package."""

import ast
import difflib
import importlib.util
import re
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from multigrain_jax.errors import InputError

# What the recipes import each other as.
PACKAGE = "configs"
_HERE = Path(__file__).parent


def shipped_folder() -> Path:
    """Where the recipes are that come with this package: in a wheel, or its clone."""
    installed = _HERE / "recipes"
    return installed if installed.is_dir() else _HERE.parent / PACKAGE


def recipes() -> list[Path]:
    """The recipes that come with this package, in the order of their names."""
    return sorted(shipped_folder().glob("[a-z]*.py"))


def find_recipe(given: str) -> str:
    """The file of `NAME[:ARGUMENT]`, with its argument.

    Args:
        given: a file; or a recipe which comes with this package, as `joint_3B`, or,
            where no file has that name, as `joint_3B.py` or `configs/joint_3B.py`.

    Raises:
        InputError: there is no such recipe.
    """
    name, colon, argument = given.partition(":")
    path = Path(name)
    found = shipped_folder() / f"{path.name.removesuffix('.py')}.py"
    # A word alone is the name of a recipe, whatever lies here that is called so.
    is_word = name == path.name and not path.suffix
    if not path.is_file() or (is_word and found.is_file()):
        if path.parent not in (Path(), Path(PACKAGE)) or not found.is_file():
            raise InputError(f"--config: there is no file {name}; {_others(path)}")
        name = str(found)
    return f"{name}{colon}{argument}"


def load_recipe(given: str) -> Any:
    """The configuration of `path/NAME.py[:ARGUMENT]`, as its `get_config` makes it.

    Raises:
        InputError: it cannot be made.
    """
    file, colon, argument = given.partition(":")
    # The flag's own parser would hand on an empty one.
    if colon and not argument:
        raise InputError(
            f"--config: found nothing behind the colon of {given}, expected an "
            "argument; give one, or leave the colon out"
        )
    _let_recipes_import_each_other(Path(file))
    try:
        return runpy.run_path(file)["get_config"](*([argument] if argument else []))
    except Exception as error:
        then = f" for the argument {argument!r}" if argument else ""
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(
            f"--config: {file} gives no recipe{then}: {kind}{error}"
        ) from error


def _let_recipes_import_each_other(file: Path) -> None:
    """Make `configs.NAME` what is beside a recipe, or what comes with the package."""
    folder = file.absolute().parent
    # Nothing else: what lies beside somebody's own file may be called like a library.
    if folder.name == PACKAGE or (folder.parent / PACKAGE / "base.py").is_file():
        sys.path.insert(0, str(folder.parent))
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None:
        return
    # In a wheel they are a folder of the package, under another name.
    spec = importlib.util.spec_from_file_location(
        PACKAGE,
        shipped_folder() / "__init__.py",
        submodule_search_locations=[str(shipped_folder())],
    )
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def _others(path: Path) -> str:
    names = [found.stem for found in recipes()]
    hint = nearest(path.name.removesuffix(".py"), names)
    return f"the recipes are {', '.join(names)}{hint}"


def nearest(name: str, choices: Iterable[str]) -> str:
    """` (did you mean …?)`, or nothing where no choice is alike."""
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def summary(path: Path) -> str:
    """The first line of a Python file's docstring, without a task's name."""
    return first_line(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))


def first_line(docstring: str | None) -> str:
    """The first line of a docstring, without a task's name."""
    return re.sub(r"^Task `\w+`: ", "", (docstring or "").partition("\n")[0])
