"""The nearest photos of a collection, each once, and queries that these join."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from multigrain_jax.descriptors.approximate.search import ApproximateIndex
from multigrain_jax.descriptors.index import DescriptorIndex, ScoreNormalization
from multigrain_jax.descriptors.roots import identity_of
from multigrain_jax.distributed import agree_on_matrix, host_rows, sum_over_hosts
from multigrain_jax.ops.refinement import expand_queries

# Queries whose neighbours are read at once.
QUERIES_AT_ONCE = 256


class Neighbour(NamedTuple):
    """A photo that was found: its row of the index, its path, how similar it is."""

    row: int
    path: str
    similarity: float


def nearest_photos(
    index: DescriptorIndex | ApproximateIndex,
    paths: Sequence[str],
    descriptors: np.ndarray,
    *,
    k: int,
    normalization: ScoreNormalization | None = None,
) -> list[list[Neighbour]]:
    """The k most similar photos of each query, itself not among them.

    Links to one file are one photo, which is found by the path of the first of them.
    Of several hosts all have to ask, for the same queries.

    Args:
        index: the collection, or an approximate index of it.
        paths: of the Q queries.
        descriptors: [Q, D].
        k: how many.
        normalization: of the similarities.
    """
    neighbours: list[list[Neighbour]] = [[] for _ in paths]
    identity = lru_cache(maxsize=None)(identity_of)
    # One more than asked for: a query that is in the collection finds itself.
    pending, wanted = np.arange(len(paths)), k + 1
    while len(pending):
        similarities, rows = index.search(
            descriptors[pending], wanted, normalization=normalization
        )
        distinct = np.unique(rows[rows >= 0])
        found = dict(zip(distinct.tolist(), index.paths(distinct), strict=True))
        for number, own_rows, own_similarities in zip(
            pending.tolist(), rows.tolist(), similarities.tolist(), strict=True
        ):
            # The same photo under another name is not found either, nor found twice.
            listed = {identity(paths[number]): Neighbour(-1, "", 0.0)}
            for row, similarity in zip(own_rows, own_similarities, strict=True):
                if row >= 0:
                    photo = Neighbour(row, found[row], similarity)
                    listed.setdefault(identity(photo.path), photo)
            neighbours[number] = list(listed.values())[1 : k + 1]
        short = [len(neighbours[number]) < k for number in pending]
        pending = pending[short] if wanted < len(index) else pending[:0]
        # Process 0 tells which: others may see other links.
        pending = agree_on_matrix(pending[None])[0]
        wanted = min(4 * wanted, len(index))
    return neighbours


def expand_by_neighbours(
    index: DescriptorIndex | ApproximateIndex,
    paths: Sequence[str],
    descriptors: np.ndarray,
    *,
    num_neighbours: int,
    alpha: float,
) -> np.ndarray:
    """Queries joined by their nearest photos, as `expand_queries`: float32 [Q, D].

    Args:
        index: the collection.
        paths: of the Q queries, which do not join themselves.
        descriptors: [Q, D], of unit length.
        num_neighbours: how many join; at least 1.
        alpha: α; 0 is the plain mean.
    """
    queries = np.asarray(descriptors, np.float32)
    expanded = np.empty_like(queries)
    found = nearest_photos(index, paths, queries, k=num_neighbours)
    rows = np.full((len(found), num_neighbours), -1, np.int32)
    for own, neighbours in zip(rows, found, strict=True):
        own[: len(neighbours)] = [neighbour.row for neighbour in neighbours]
    rows = agree_on_matrix(rows)
    for start in range(0, len(rows), QUERIES_AT_ONCE):
        block = rows[start : start + QUERIES_AT_ONCE]
        known = np.unique(block[block >= 0])
        vectors = _read_together(index, known)
        for number, own in enumerate(block, start=start):
            photos = vectors[np.searchsorted(known, own[own >= 0])]
            query = queries[number : number + 1]
            expanded[number] = expand_queries(
                query, photos, num_neighbours=num_neighbours, alpha=alpha
            )[0]
    return expanded


def _read_together(
    index: DescriptorIndex | ApproximateIndex, rows: np.ndarray
) -> np.ndarray:
    """Descriptors of some rows, float32 [n, D], each read by the host that has it."""
    own = host_rows(len(index))
    vectors = np.zeros((len(rows), index.dim), np.float32)
    for place, row in enumerate(rows.tolist()):
        if own.start <= row < own.stop:
            vectors[place] = index.read(row, 1)[0]
    return sum_over_hosts(vectors)
