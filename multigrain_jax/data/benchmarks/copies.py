"""A benchmark of copies made from any photos, as DISC21 is made: most find nothing.

Some photos are edited, and the copies look for their originals among these and others
that only distract; copies of photos that are not there find nothing, and must be less
sure of it. Douze et al., "The 2021 image similarity dataset and challenge", arXiv
2106.09672.
"""

from typing import NamedTuple

import numpy as np


class Roles(NamedTuple):
    """What photos are in a benchmark of copies: int64 numbers, ascending, each once.

    Attributes:
        references: in the database; their copies are queries.
        distractors: in the database, and nothing else.
        strangers: not in the database; their copies are queries with nothing to find.
    """

    references: np.ndarray
    distractors: np.ndarray
    strangers: np.ndarray


def assign_roles(count: int, *, seed: int) -> Roles:
    """A third of the photos for each role, drawn by lot.

    Args:
        count: photos, numbered from 0.
        seed: of the lots.
    """
    order = np.random.default_rng(seed).permutation(count)
    return Roles(*(np.sort(part) for part in np.array_split(order, 3)))
