"""Known instances: which photos show the same thing, by folders or a list file."""

from collections.abc import Sequence

import numpy as np

# The value of `data.instances` that means the third column of the list file.
LIST = "list"


def is_instance_rule(rule: str) -> bool:
    """Whether `rule` is a level of folders, counted from 1, or `LIST`."""
    return rule == LIST or (rule.isascii() and rule.isdigit() and int(rule) >= 1)


def name_instance(rule: str | None, path: str, *, listed: str = "") -> str | None:
    """The name of the instance that a photo shows; None: it is one of its own.

    Args:
        rule: a level of folders, `LIST`, or None: nothing is known of any photo.
        path: of the photo, below the folder whose subfolders are level 1.
        listed: the third column of the photo's line.
    """
    if rule is None:
        return None
    if rule == LIST:
        return listed.strip() or None
    folders = path.split("/")[:-1]
    level = int(rule)
    # The folders above are part of the name: two may hold one of the same name.
    return "/".join(folders[:level]) if len(folders) >= level else None


def number_instances(names: Sequence[str | None]) -> np.ndarray | None:
    """Which instance each photo shows, int32 [N]; None where no photo names any.

    Names are numbered in sorted order; a photo without one has a number of its own.
    """
    known = sorted({name for name in names if name is not None})
    if not known:
        return None
    numbers = {name: number for number, name in enumerate(known)}
    instances = np.empty(len(names), np.int32)
    alone = len(known)
    for index, name in enumerate(names):
        if name is None:
            instances[index] = alone
            alone += 1
        else:
            instances[index] = numbers[name]
    return instances
