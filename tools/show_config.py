"""Print every key of a recipe as the command line resolves it, with what it means.

python tools/show_config.py --config configs/folder.py --config.seed=1

The arguments are those of `python -m multigrain_jax.main`. Comments are those of
configs/; a value that the command line sets is marked.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from absl import app, flags
from ml_collections import config_flags

from multigrain_jax import main as command_line

# `    config.data.root = value  # what it is`
_ASSIGNMENT = re.compile(r"\s*config\.([\w.]+) = .*?(?:\s\s# (.*))?$")
_COMMENT = re.compile(r"\s*# (.*)$")
_IMPORT = re.compile(r"from configs import (\w+)")


class Comment(NamedTuple):
    """What the recipes say of a key: the lines above it, and the one behind it."""

    above: list[str]
    behind: str


def main(argv: list[str]) -> int:
    """Print the resolved configuration; returns the exit code 0."""
    del argv
    config = command_line.CONFIG.value
    flag = flags.FLAGS["config"]
    overridden = set(config_flags.get_override_values(flag))
    file = Path(config_flags.get_config_filename(flag).partition(":")[0])
    command_line.print_to_pipe(
        format_config(config.to_dict(), read_comments(file), overridden)
    )
    return 0


def read_comments(file: Path) -> dict[str, Comment]:
    """The comments on each key, in the order in which the keys are first stated.

    Args:
        file: a recipe. Those that it imports are read first: its own words count.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    comments: dict[str, Comment] = {}
    for line in lines:
        if imported := _IMPORT.match(line):
            comments |= read_comments(file.with_name(f"{imported[1]}.py"))
    above: list[str] = []
    for line in lines:
        assignment = _ASSIGNMENT.match(line)
        if assignment:
            key, behind = assignment.groups()
            if above or behind or key not in comments:
                comments[key] = Comment(above, behind or "")
        comment = None if assignment else _COMMENT.match(line)
        above = [*above, comment[1]] if comment else []
    return comments


def format_config(
    config: Mapping[str, Any], comments: Mapping[str, Comment], overridden: set[str]
) -> str:
    """A line `key = value` for every value, with the comments above and behind.

    Args:
        config: nested dictionaries.
        comments: from `read_comments`; they also give the order.
        overridden: dotted keys that the command line has set.
    """
    flat = _flatten(config)
    order = {key: number for number, key in enumerate(comments)}
    lines = []
    for key in sorted(flat, key=lambda key: (order.get(key, len(order)), key)):
        comment = comments.get(key, Comment([], ""))
        notes = [comment.behind] if comment.behind else []
        notes += ["set on the command line"] if key in overridden else []
        lines += [f"# {line}" for line in comment.above]
        lines.append(f"{key} = {flat[key]!r}" + "".join(f"  # {n}" for n in notes))
    return "\n".join(lines)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
