"""`multigrain recipes` and `multigrain weights`: what can be named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from multigrain_jax.errors import InputError
from multigrain_jax.recipe_files import find_recipe, load_recipe, recipes, summary
from multigrain_jax.recipe_text import format_config, read_comments
from multigrain_jax.tasks.bounds import leaves

JSON = "--json"
LISTS = {
    "recipes": "the recipes; with a name every key of one",
    "weights": "published weights that you can ask for by name",
}


def main(name: str, words: list[str]) -> int:
    """Print a list; returns the exit code.

    Raises:
        InputError: words that it does not take, or no such recipe.
    """
    if {"-h", "--help"} & set(words):
        takes = " [NAME]" if name == "recipes" else ""
        print(f"multigrain {name}{takes} [--json]\n\nPrints {LISTS[name]}.")
        return 0
    as_json = JSON in words
    words = [word for word in words if word != JSON]
    if len(words) > (name == "recipes"):
        raise InputError(f"{name}: {words} is more than it takes")
    if as_json:
        print(json.dumps(_values(name, words), allow_nan=False))
    elif name == "weights":
        print(_weights())
    elif words:
        print(_keys(words[0]))
    else:
        print("\n".join(f"{path.stem:<18}{summary(path)}" for path in recipes()))
    return 0


def _values(name: str, words: list[str]) -> dict[str, Any]:
    """What is listed, by its name: for programs."""
    if name == "weights":
        from multigrain_jax.weights import PUBLISHED

        return {each: dataclasses.asdict(row) for each, row in PUBLISHED.items()}
    if words:
        return dict(leaves(load_recipe(find_recipe(words[0])).to_dict()))
    return {path.stem: summary(path) for path in recipes()}


def _keys(given: str) -> str:
    """Every key of a recipe, with its value and what the recipes say of it."""
    found = find_recipe(given)
    file = Path(found.partition(":")[0])
    return format_config(load_recipe(found).to_dict(), read_comments(file), set())


def _weights() -> str:
    """Each published name: its network, at which size it is best, its licence."""
    from multigrain_jax.weights import PUBLISHED

    rows = [("name", "network", "size", "licence")]
    rows += [
        (name, row.backbone, f"{row.test_size} {row.test_mode}", _short(row.licence))
        for name, row in PUBLISHED.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(
            [*(f"{text:<{w}}" for text, w in zip(row, widths, strict=False)), row[3]]
        )
        for row in rows
    ]
    return "\n".join(
        [*lines, "", "--init-from NAME downloads one when it is first asked for."]
    )


def _short(licence: str) -> str:
    """Without what it means, which is told when the weights are fetched."""
    return licence.partition(" (weights")[0]
