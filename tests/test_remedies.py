"""What messages advise can be typed as it is shown, by every way to come."""

import ast
import re
import sys
from pathlib import Path

import pytest
from absl import app

from multigrain_jax import commands, main, remedies
from multigrain_jax.commands.tasks import COMMANDS, _key
from multigrain_jax.data.benchmarks import BENCHMARKS
from multigrain_jax.recipe_files import load_recipe, recipes, shipped_folder
from multigrain_jax.remedies import by_commands, install, worded
from multigrain_jax.tasks.bounds import leaves

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multigrain_jax"
BY_RECIPE = {command.recipe: name for name, command in COMMANDS.items()}
KEY = re.compile(r"--config\.(\w+(?:\.\w+)*)(?![\w.]*{)")


def texts_of(path: Path) -> list[str]:
    """The strings of a file that are no docstrings; what is put in is {}."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            skipped.add(node.body[0].value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                p.value if isinstance(p, ast.Constant) else "{}" for p in node.values
            ]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and node not in skipped:
            found += [node.value] if isinstance(node.value, str) else []
    return found


TEXTS = [
    (path.relative_to(PACKAGE).as_posix(), text)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name not in ("commands", "recipes") and path.name != "remedies.py"
    for text in texts_of(path)
]
ADVISED = {(path, key) for path, text in TEXTS for key in KEY.findall(text)}
ADVISED -= {("main.py", key) for key in ("key", "KEY")}  # any key


@pytest.fixture(scope="module")
def keys_of_recipes():
    """Recipe -> (its task, its keys and values); sections count as keys too."""
    before = list(sys.path)
    folder = shipped_folder()
    names = [str(path) for path in recipes()]
    names += [f"{folder / 'eval_retrieval.py'}:{name}" for name in BENCHMARKS]
    configs = {name: load_recipe(name).to_dict() for name in names}
    sys.path[:] = before
    return {name: (c["task"], dict(leaves(c))) for name, c in configs.items()}


def test_messages_name_keys_that_there_are_and_multigrain_takes(keys_of_recipes):
    assert len(ADVISED) > 30
    unknown = []
    for path, key in sorted(ADVISED):
        task = path.removeprefix("tasks/").removesuffix(".py")
        of_task = task if task in main.TASKS else None
        known = [
            keys
            for of, keys in keys_of_recipes.values()
            if of_task in (None, of)
            and any(f"{name}.".startswith(f"{key}.") for name in keys)
        ]
        if not known:
            unknown.append((path, key))
            continue
        with by_commands(BY_RECIPE):
            flag = worded(f"--config.{key}=1").removesuffix("=1")
        for keys in known:
            if key in keys:
                assert _key(flag.removeprefix("--"), keys) == (key, False)
    assert unknown == []


def test_recipes_and_pages_that_messages_name_are_there():
    named = {
        name for _, text in TEXTS for name in re.findall(r"configs/(\w+)\.py", text)
    }
    assert named and named <= {path.stem for path in recipes()} | {"NAME"}
    pages = {name for _, text in TEXTS for name in re.findall(r"docs/(\w+)\.md", text)}
    assert pages and all((ROOT / "docs" / f"{name}.md").is_file() for name in pages)


def test_no_message_names_what_a_wheel_lacks():
    """But for a line of `recorder`, which asks first."""
    there = re.compile(r"(?<!\w)(?:tools|measure|examples)/|-e '|'\.\[|README")
    found = [path for path, text in TEXTS if there.search(text)]
    assert found == ["train/recorder.py"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give it with --config.data.root=DIR", "give it with --data-root=DIR"),
        ("set --config.verify.\nOr", "set --verify.\nOr"),
        (
            "with --config configs/index.py --config.rebuild=True",
            "with multigrain run index --rebuild=True",
        ),
        ("or use configs/search.py", "or use multigrain search"),
        ("(configs/near_duplicates.py)", "(multigrain duplicates)"),
        (
            "error: --config: configs/x.py gives no",
            "error: recipe: configs/x.py gives no",
        ),
        ("in /home/configs/search.py", "in /home/configs/search.py"),
        (
            "python -m multigrain_jax.main --config search --config.queries=q",
            "python -m multigrain_jax.main --config search --config.queries=q",
        ),
        ("see docs/scaling.md", "see docs/scaling.md"),
        ("; the task `embed` makes one", "; `multigrain embed` makes one"),
        ("run the task `index` again", "run the task `index` again"),
    ],
)
def test_messages_speak_of_the_command_that_was_typed(text, expected):
    assert worded(text) == text
    with by_commands(BY_RECIPE):
        assert worded(text) == expected


def test_a_wheel_has_no_clone(monkeypatch):
    assert install("heif") == "pip install -e '.[heif]'"
    monkeypatch.setattr(remedies, "IN_CLONE", False)
    assert install("heif") == "pip install 'multigrain_jax[heif]'"
    said = "see the page scaling of the documentation"
    assert worded("see docs/scaling.md") == said


def test_what_a_command_prints_is_worded(monkeypatch, capsys):
    def fail(main, *, argv, **_):
        print("error: give it with --config.init_from=DIR", file=sys.stderr)
        print("run configs/whiten.py")
        raise SystemExit(2)

    monkeypatch.setattr(app, "run", fail)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    assert commands.main(["embed", "photos"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: give it with --init-from=DIR\n"
    assert printed.out == "run multigrain run whiten\n"
    print("--config.seed")
    assert capsys.readouterr().out == "--config.seed\n"
