"""Published weights that are asked for by name.

`find_weights` is what everything that opens a checkpoint asks: a path stays what it is,
a name of the table becomes the path of a converted checkpoint, which is downloaded when
it is first asked for.
"""

from multigrain_jax.weights.library import (
    find_weights,
    is_name,
    keep_weights,
    names,
)
from multigrain_jax.weights.table import PUBLISHED, PublishedWeights

__all__ = [
    "PUBLISHED",
    "PublishedWeights",
    "find_weights",
    "is_name",
    "keep_weights",
    "names",
]
