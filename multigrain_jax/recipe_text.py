"""What recipes say of their keys: the comments in their files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.tasks.bounds import leaves

# `    config.data.root = value  # what it is`
_ASSIGNMENT = re.compile(r"\s*config\.([\w.]+) = .*?(?:\s\s# (.*))?$")
_COMMENT = re.compile(r"\s*# (.*)$")
_IMPORT = re.compile(r"from configs import (\w+)")


class Comment(NamedTuple):
    """What the recipes say of a key: the lines above it, and the one behind it."""

    above: list[str]
    behind: str


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
    flat = dict(leaves(config))
    order = {key: number for number, key in enumerate(comments)}
    lines = []
    for key in sorted(flat, key=lambda key: (order.get(key, len(order)), key)):
        comment = comments.get(key, Comment([], ""))
        notes = [comment.behind] if comment.behind else []
        notes += ["set on the command line"] if key in overridden else []
        lines += [f"# {line}" for line in comment.above]
        lines.append(f"{key} = {flat[key]!r}" + "".join(f"  # {n}" for n in notes))
    return "\n".join(lines)
