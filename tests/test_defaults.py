"""What a recipe decides has no default below the tasks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("data", "descriptors", "evaluation", "pages")
FOLDERS = tuple(f"multigrain_jax/{part}" for part in PARTS)
# What functions call a value that a recipe decides, where that is not the key's name.
OTHER_NAMES = {
    "normalization_neighbours",
    "normalization_weight",
    "prefetch",
    "reading",
    "smallest_side",
    "timeout_s",
}


def keys_of(recipe: str) -> set[str]:
    """The last names of the keys that a recipe sets."""
    return {
        node.attr
        for node in ast.walk(ast.parse(recipe))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def defaults_of(code: str) -> Iterator[tuple[str, str]]:
    """Every function, and each of its arguments that may be left out."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            in_place = [*arguments.posonlyargs, *arguments.args]
            first = len(in_place) - len(arguments.defaults)
            named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            for argument in in_place[first:]:
                yield node.name, argument.arg
            for argument, default in named:
                if default is not None:
                    yield node.name, argument.arg


def test_what_a_recipe_decides_has_no_default():
    recipes = (ROOT / "configs").glob("*.py")
    decided = OTHER_NAMES.union(*(keys_of(path.read_text()) for path in recipes))
    assert {"num_workers", "val_fraction", "rows_per_shard", "crop_resize"} <= decided
    complaints = [
        f"{path.relative_to(ROOT)}: {function}({argument}=…)"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for function, argument in defaults_of(path.read_text(encoding="utf-8"))
        if argument in decided
    ]
    assert complaints == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(a, /, b, *, c): 1", []),
        ("def f(a, b=1, *, c, d=2): 1", [("f", "b"), ("f", "d")]),
        ("class A:\n def f(self, *, a=None): 1", [("f", "a")]),
    ],
)
def test_defaults_are_found(code, found):
    assert list(defaults_of(code)) == found
