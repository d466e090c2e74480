"""What messages tell a user to type: what works in the way that they came by."""

import contextlib
import re
from collections.abc import Generator, Mapping
from pathlib import Path

# Pages, tools and extras of a clone are beside the package; a wheel has none of them.
IN_CLONE = (Path(__file__).parents[1] / "pyproject.toml").is_file()

_KEY = re.compile(r"--config\.(\w+(?:\.\w+)*)")
_RECIPE = re.compile(r"(?:--config )?(?<![\w/.-])configs/(\w+)\.py\b")
_TASK = re.compile(r"\bthe task `(\w+)`")
_PAGE = re.compile(r"(?<![\w/.-])docs/(\w+)\.md\b")
# Lines with whole commands, which work whoever types them.
_WHOLE = "multigrain_jax.main"


class _Came:
    """The commands of recipes, if the process was started by `multigrain`."""

    by: Mapping[str, str] | None = None


@contextlib.contextmanager
def by_commands(recipes: Mapping[str, str]) -> Generator[None]:
    """Within this context let `worded` speak of `multigrain`.

    Args:
        recipes: recipe -> its command, of those that have one; `run` has the others.
    """
    before, _Came.by = _Came.by, recipes
    try:
        yield
    finally:
        _Came.by = before


def worded(text: str) -> str:
    """A message with what its reader can type.

    Messages name keys and recipes as `python -m multigrain_jax.main` takes them. For
    whoever came by `multigrain` a key is its flag, which means the same, and a recipe
    its command; without a clone a page has no file.

    Args:
        text: whole lines, as they are printed.
    """
    return "\n".join(map(_worded, text.split("\n")))


def _worded(line: str) -> str:
    if not IN_CLONE:
        line = _PAGE.sub(r"the page \1 of the documentation", line)
    if _Came.by is None or _WHOLE in line:
        return line
    if "--config: " in line:  # what is said of a recipe's file, by its name
        return line.replace("--config: ", "recipe: ")
    for task in _TASK.findall(line):
        if task in _Came.by:
            line = line.replace(f"the task `{task}`", f"`{_command_of(task)}`")
    line = _KEY.sub(lambda found: f"--{flag_of(found[1])}", line)
    return _RECIPE.sub(lambda found: _command_of(found[1]), line)


def flag_of(key: str) -> str:
    """What follows the dashes where a key is given to `multigrain`."""
    return key.replace("_", "-").replace(".", "-")


def _command_of(recipe: str) -> str:
    return f"multigrain {(_Came.by or {}).get(recipe, f'run {recipe}')}"


def install(extra: str) -> str:
    """The command that brings an extra of this package."""
    place = f".[{extra}]" if IN_CLONE else f"multigrain_jax[{extra}]"
    return f"pip install {'-e ' if IN_CLONE else ''}'{place}'"
