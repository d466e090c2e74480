"""Searched cells as data: which branches are summed, and how they sample.

A cell has two inputs, the outputs of the two cells before it: `LEFT` is the older,
`RIGHT` the newer, both brought to the cell's width. It adds up pairs of branches over
them and over earlier sums; some of these, concatenated, are its output.
"""

from typing import Literal, NamedTuple

# Where a cell's windows are centred in its inputs: on every pixel; on 0, 2, 4, …
# (ceil(H / 2) of them); or on 1, 3, 5, … (floor(H / 2)).
Sampling = Literal["dense", "even", "odd"]

# What a branch reads: an input of the cell, or the number of an earlier sum.
Source = Literal["left", "right"] | int
LEFT: Literal["left"] = "left"
RIGHT: Literal["right"] = "right"


class Branch(NamedTuple):
    """One term of a sum: an operation with a square kernel on a source."""

    operation: Literal["separable", "max_pool", "average_pool", "identity"]
    kernel: int
    source: Source


def separable(kernel: int, source: Source) -> Branch:
    """Two separable convolutions, each as ReLU, depthwise, pointwise, batch norm."""
    return Branch("separable", kernel, source)


def maximum(source: Source) -> Branch:
    """A 3x3 max-pool."""
    return Branch("max_pool", 3, source)


def average(source: Source) -> Branch:
    """A 3x3 average pool that does not count padding."""
    return Branch("average_pool", 3, source)


def identity(source: Source) -> Branch:
    """The source itself."""
    return Branch("identity", 1, source)


class CellPlan(NamedTuple):
    """A cell as data.

    Attributes:
        sums: pairs of branches; a branch may read the sums before its own.
        outputs: what is concatenated, in this order.
    """

    sums: tuple[tuple[Branch, Branch], ...]
    outputs: tuple[Source, ...]


class CellSpec(NamedTuple):
    """One cell of a network.

    Attributes:
        plan: its branches.
        width: channels of every sum.
        sampling: how its branches sample the two inputs ("dense": stride 1, the
            others: stride 2). Branches on earlier sums are always dense.
    """

    plan: CellPlan
    width: int
    sampling: Sampling
