"""Pairs of a collection that are nearly the same, and the groups that they form."""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from multigrain_jax.descriptors.index import CHUNK, SEARCH_BYTES, DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.mesh import batch_sharding, make_mesh, put_replicated, replicated

MAX_PAIRS = 20_000_000


class NearDuplicates(NamedTuple):
    """What is nearly the same in a collection.

    Attributes:
        pairs: int64 [P, 2], rows a < b, sorted by a and then b.
        similarities: float32 [P], of each pair.
        groups: ascending rows that pairs connect, also over others; the largest groups
            first, of equal ones that of the smallest row.
    """

    pairs: np.ndarray
    similarities: np.ndarray
    groups: list[np.ndarray]


def near_duplicates(
    index: DescriptorIndex, threshold: float, *, block_bytes: int = SEARCH_BYTES
) -> NearDuplicates:
    """All pairs of live rows whose inner product is at least `threshold`, exactly.

    Args:
        index: the collection.
        threshold: least inner product; between 0 and 1 for unit lengths.
        block_bytes: memory of the search, beside the pairs.

    Raises:
        InputError: more than `MAX_PAIRS` pairs.
    """
    mesh = make_mesh()
    step = _pair_step(mesh)
    unit = CHUNK * mesh.size
    # Similarities and, beside them, which are large: about 6 bytes a pair, 2 in flight.
    side = int((block_bytes / 12) ** 0.5) // unit * unit
    side = max(unit, min(side, -(-len(index) // unit) * unit))
    split = batch_sharding(mesh)
    pairs, similarities, count = [], [], 0
    for first in range(0, len(index), side):
        left = put_replicated(mesh, index.read_padded(first, side))
        for second in range(first, len(index), side):
            right = jax.device_put(index.read_padded(second, side), split)
            similarity, packed, found = step(
                *left, *right, np.float32(threshold), np.int32(second - first)
            )
            count += int(found)
            if count > MAX_PAIRS:
                raise InputError(
                    f"threshold = {threshold}: more than {MAX_PAIRS} pairs of "
                    f"{int(index.live.sum())} images are as similar; raise it"
                )
            if int(found):
                b, a = _unpack(np.asarray(packed))
                pairs.append(np.stack([a + first, b + second], axis=1))
                similarities.append(np.asarray(similarity)[b, a])
    if not pairs:
        return NearDuplicates(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), [])
    all_pairs = np.concatenate(pairs)
    order = np.lexsort((all_pairs[:, 1], all_pairs[:, 0]))
    all_pairs = all_pairs[order]
    return NearDuplicates(
        all_pairs, np.concatenate(similarities)[order], connected_groups(all_pairs)
    )


def without_links(
    found: NearDuplicates, identities: Mapping[int, Hashable]
) -> tuple[NearDuplicates, dict[int, int]]:
    """Near duplicates among photos, where several rows may be one photo.

    Args:
        found: among rows.
        identities: of each row in a pair, what tells photos apart.

    Returns:
        The same among the first row of each photo, and the other rows (of pairs) with
        that first one.
    """
    first: dict[Hashable, int] = {}
    photo = {row: first.setdefault(identities[row], row) for row in sorted(identities)}
    links = {row: own for row, own in photo.items() if row != own}
    if not links:
        return found, links
    pairs: dict[tuple[int, int], float] = {}
    for (a, b), similarity in zip(
        found.pairs.tolist(), found.similarities.tolist(), strict=True
    ):
        a, b = sorted((photo[a], photo[b]))
        if a != b:
            pairs.setdefault((a, b), similarity)
    array = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    similarities = np.array([pairs[pair] for pair in sorted(pairs)], np.float32)
    return NearDuplicates(array, similarities, connected_groups(array)), links


def connected_groups(pairs: np.ndarray | Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The connected components of a graph, by union-find.

    Args:
        pairs: int [P, 2], its edges.

    Returns:
        Ascending int64 arrays of nodes; the largest first, of equal ones that of the
        smallest node.
    """
    nodes, edges = np.unique(np.asarray(pairs, np.int64), return_inverse=True)
    parent = list(range(len(nodes)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in edges.reshape(-1, 2).tolist():
        a, b = root(a), root(b)
        # The smaller node becomes the root, so that groups come in their order.
        parent[max(a, b)] = min(a, b)
    roots = np.array([root(node) for node in range(len(nodes))], np.int64)
    order = np.argsort(roots, kind="stable")
    _, starts = np.unique(roots[order], return_index=True)
    groups = np.split(nodes[order], starts[1:]) if len(nodes) else []
    return sorted(groups, key=len, reverse=True)


@lru_cache
def _pair_step(mesh: Mesh):
    """Compile `(left, live, right, live, threshold, offset) -> …`.

    Similarities [right, left], whether they count as bits uint8 [right, left / 8], and
    how many do. The block of the right begins `offset` rows after that of the left.
    """

    def step(left, left_live, right, right_live, threshold, offset):
        similarity = jnp.matmul(
            right.astype(jnp.float32),
            left.astype(jnp.float32).T,
            precision=jax.lax.Precision.HIGHEST,
        )
        a = jnp.arange(len(left), dtype=jnp.int32)[None, :]
        b = jnp.arange(len(right), dtype=jnp.int32)[:, None] + offset
        wanted = (similarity >= threshold) & (a < b)
        wanted = wanted & left_live[None, :] & right_live[:, None]
        return similarity, jnp.packbits(wanted, axis=1), jnp.sum(wanted)

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, whole, split, split, whole, whole),
        out_shardings=(split, split, whole),
    )


def _unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every bit that is set; most bytes are zero."""
    rows, bytes_ = np.nonzero(packed)
    which, bits = np.nonzero(np.unpackbits(packed[rows, bytes_][:, None], axis=1))
    return rows[which], bytes_[which] * 8 + bits
