"""A group of duplicates that holds too much of a collection to be one."""

from collections.abc import Sequence

import numpy as np

# A group of so large a share of all photos, and of so many at least, is warned of.
LARGE_SHARE = 0.1
LARGE_GROUP = 10


def warn_of_large_group(
    groups: Sequence[np.ndarray], num_images: float, remedy: str
) -> None:
    """A line where photos are probably called duplicates that are none.

    Args:
        groups: the photos of each.
        num_images: all that were compared.
        remedy: what makes groups smaller.
    """
    largest = max((len(group) for group in groups), default=0)
    if largest >= LARGE_GROUP and largest > LARGE_SHARE * num_images:
        print(
            f"WARNING: the largest group holds {largest} of {num_images:g} photos, "
            f"which are hardly all the same: {remedy}"
        )
