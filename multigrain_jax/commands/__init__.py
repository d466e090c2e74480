"""The command `multigrain`: everyday tasks in few words, by the same recipes.

    multigrain embed ~/photos --init-from weights/joint_3B_0.5
    multigrain search one.jpg

Each becomes the line of `python -m multigrain_jax.main` that `--dry-run` prints.
"""

import sys

from multigrain_jax.commands import lists, tasks
from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import nearest
from multigrain_jax.remedies import by_commands, worded
from multigrain_jax.terminal import changing

_USAGE = "multigrain COMMAND …"


def main(words: list[str]) -> int:
    """Run a command; returns the exit code, as `multigrain_jax.main` has them.

    Args:
        words: what follows `multigrain` on the command line.
    """
    recipes = {command.recipe: name for name, command in tasks.COMMANDS.items()}
    with by_commands(recipes), changing(worded):
        return _main(words)


def _main(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    try:
        if name in ("-h", "--help", "help"):
            print(_help())
            return 0
        if name == "--version":
            from multigrain_jax import __version__

            print(f"multigrain {__version__}")
            return 0
        if name == "convert":
            from multigrain_jax.commands import convert

            return convert.main(rest)
        if name in lists.LISTS:
            return lists.main(name, rest)
        if name in tasks.COMMANDS or name == tasks.ANY_RECIPE:
            return tasks.main(name, rest)
        known = [*tasks.COMMANDS, tasks.ANY_RECIPE, "convert", *lists.LISTS]
        raise InputError(
            f"there is no command {name!r}{nearest(name, known)}; "
            f"the commands are {', '.join(known)}"
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _help() -> str:
    """Every command with what it does, and where to read on."""
    listed = {name: command.summary for name, command in tasks.COMMANDS.items()}
    listed |= {
        tasks.ANY_RECIPE: "any recipe, by its name",
        "convert": "weights of PyTorch, of a file or by a published name",
        **lists.LISTS,
    }
    return "\n".join(
        [
            _USAGE,
            "",
            *(f"  {name:<12}{summary}" for name, summary in listed.items()),
            "",
            "multigrain COMMAND --help: what it takes, keys that matter, an example",
            "multigrain recipes NAME: every key of a recipe, with what it means",
        ]
    )
