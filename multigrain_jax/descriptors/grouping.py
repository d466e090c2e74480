"""Groups of photos from the pairs that are nearly the same: arrays in, arrays out."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

# "single": what pairs connect, also over others. "complete": each two are a pair.
Linkage = Literal["single", "complete"]
LINKAGES: tuple[Linkage, ...] = ("single", "complete")


def group_pairs(
    pairs: np.ndarray,
    similarities: np.ndarray,
    *,
    threshold: float,
    linkage: Linkage,
    copies: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The groups that pairs of at least a similarity form.

    Args:
        pairs: int [P, 2], each pair of rows once.
        similarities: [P], of each pair.
        threshold: the least similarity of a pair that counts.
        linkage: which groups, as `connected_groups` and `complete_groups` have them.
        copies: int [C, 2], a row and the one that it equals: the first is in no pair
            and goes with the second.

    Returns:
        Ascending int64 arrays of rows; the largest first, of equal ones that of the
        smallest row.
    """
    counts = np.asarray(similarities) >= threshold
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)[counts]
    if linkage == "single":
        groups = connected_groups(pairs)
    else:
        groups = complete_groups(pairs, np.asarray(similarities)[counts])
    if copies is None or not len(copies):
        return groups
    return _with_copies(groups, np.asarray(copies, np.int64))


def connected_groups(pairs: np.ndarray | Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The connected components of a graph.

    Args:
        pairs: int [P, 2], its edges.

    Returns:
        Ascending int64 arrays of nodes; the largest first, of equal ones that of the
        smallest node.
    """
    nodes, edges = np.unique(np.asarray(pairs, np.int64), return_inverse=True)
    roots = _smallest_connected(edges.reshape(-1, 2), len(nodes))
    return _largest_first(nodes, roots)


def complete_groups(pairs: np.ndarray, similarities: np.ndarray) -> list[np.ndarray]:
    """The groups of complete linkage, in which each two are a pair.

    Of all groups, at first single rows, those two are joined again and again whose
    least similar pair is the most similar, as long as each two of their rows are a
    pair. Of equal similarities, that of the smaller rows is the more similar.

    Args:
        pairs: int [P, 2], rows a < b, each pair once.
        similarities: [P], of each pair.

    Returns:
        As `connected_groups`; a row that is joined to no other is in no group.
    """
    nodes, edges = np.unique(np.asarray(pairs, np.int64), return_inverse=True)
    edges = edges.reshape(-1, 2)
    roots = _smallest_connected(edges, len(nodes))
    # A part that pairs connect is on its own, and mostly has all of its pairs.
    order = np.lexsort((edges[:, 1], edges[:, 0], -similarities, roots[edges[:, 0]]))
    edges = edges[order]
    sizes = np.bincount(roots, minlength=len(nodes))
    _, starts = np.unique(roots[edges[:, 0]], return_index=True)
    for part in np.split(edges, starts[1:]):
        size = int(sizes[roots[part[0, 0]]]) if len(part) else 0
        if len(part) < size * (size - 1) // 2:
            for group in _join_completely(part):
                roots[group] = group[0]
    return [g for g in _largest_first(nodes, roots) if len(g) > 1]


def without_rows(
    pairs: np.ndarray, similarities: np.ndarray, copies: np.ndarray, alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs and copies among the rows that are left, to be grouped anew.

    Where a row is gone that others are copies of, the first of these takes its place.

    Args:
        pairs: int [P, 2].
        similarities: [P], of each pair.
        copies: int [C, 2], as `group_pairs` has them.
        alive: bool [N], the rows that are left.

    Returns:
        The three of them, of fewer pairs and copies; pairs keep their order.
    """
    if len(copies):
        own, of = np.concatenate([copies, copies[:, 1:].repeat(2, axis=1)]).T
        first = np.full(len(alive), len(alive), np.int64)
        np.minimum.at(first, of[alive[own]], own[alive[own]])
        # Of which none is left, the row itself stands for them, and is gone too.
        rows = np.arange(len(alive))
        first = np.where(first < len(alive), first, rows)
        pairs = np.sort(first[pairs], axis=1)
        copies = np.stack([own, first[of]], axis=1)
        copies = copies[alive[own] & (copies[:, 0] != copies[:, 1])]
        copies = np.unique(copies, axis=0)
    left = alive[pairs].all(axis=1)
    return pairs[left], similarities[left], copies


def lowest_of_pairs(
    groups: Sequence[np.ndarray], pairs: np.ndarray, similarities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least similar pair of each group, of those that are known.

    Args:
        groups: of G groups, the rows, each row in one of them.
        pairs: int [P, 2].
        similarities: [P], of each pair.

    Returns:
        float32 [G], NaN where no pair of the group is known; and int64 [G], how many
        are: where it is less than n(n − 1)/2, an unknown pair is less similar still.
    """
    lowest = np.full(len(groups), np.inf, np.float32)
    known = np.zeros(len(groups), np.int64)
    if groups and len(pairs):
        rows = np.concatenate(groups)
        order = np.argsort(rows)
        of_row = np.repeat(np.arange(len(groups)), [len(g) for g in groups])[order]
        rows = rows[order]
        places = np.minimum(np.searchsorted(rows, pairs), len(rows) - 1)
        own = np.where(rows[places] == pairs, of_row[places], -1)
        inside = (own[:, 0] == own[:, 1]) & (own[:, 0] >= 0)
        np.minimum.at(lowest, own[inside, 0], similarities[inside])
        known = np.bincount(own[inside, 0], minlength=len(groups))
    return np.where(known > 0, lowest, np.float32(np.nan)), known


def _smallest_connected(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """The smallest node that each is connected to; int64 [N]."""
    parent = np.arange(num_nodes)
    while len(edges):
        ends = parent[edges]
        ends = ends[ends[:, 0] != ends[:, 1]]
        # The smaller root takes the larger one in; all others are below one of them.
        np.minimum.at(parent, ends.max(axis=1), ends.min(axis=1))
        while not np.array_equal(parent, above := parent[parent]):
            parent = above
        edges = ends
    return parent


def _largest_first(nodes: np.ndarray, roots: np.ndarray) -> list[np.ndarray]:
    if not len(nodes):
        return []
    order = np.argsort(roots, kind="stable")
    _, starts = np.unique(roots[order], return_index=True)
    return sorted(np.split(nodes[order], starts[1:]), key=len, reverse=True)


def _join_completely(edges: np.ndarray) -> Iterator[list[int]]:
    """Complete linkage of one connected part: ascending nodes of each group.

    Edges come the most similar first. The last of the edges between two groups is their
    least similar one: with it all of them are there, and no other two are as similar.
    """
    members = {node: [node] for node in np.unique(edges).tolist()}
    group_of = {node: node for node in members}
    # How many edges between two groups have come, from either.
    between: dict[int, dict[int, int]] = {node: {} for node in members}
    for a, b in edges.tolist():
        a, b = group_of[a], group_of[b]
        count = between[a].get(b, 0) + 1
        if count < len(members[a]) * len(members[b]):
            between[a][b] = between[b][a] = count
            continue
        if len(between[a]) < len(between[b]):
            a, b = b, a
        for other, number in between.pop(b).items():
            del between[other][b]
            if other != a:
                number += between[a].get(other, 0)
                between[a][other] = between[other][a] = number
        members[a] += members.pop(b)
        group_of.update(dict.fromkeys(members[a], a))
    yield from (sorted(group) for group in members.values())


def _with_copies(groups: list[np.ndarray], copies: np.ndarray) -> list[np.ndarray]:
    """Groups that copies have joined; those of no group are one with what they equal.

    They are connected, whatever the linkage: what equals a row is as similar to others.
    """
    chains = [np.stack([g[:-1], g[1:]], axis=1) for g in groups]
    return connected_groups(np.concatenate([*chains, copies]))
