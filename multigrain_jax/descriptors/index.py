"""Exact nearest neighbours by inner product, and near duplicates, in blocks.

The database stays on disk; a block of it at a time goes through one compiled step, on
all devices. Memory is bounded by `SEARCH_BYTES`, whatever the size of the database. Of
several hosts each reads its contiguous share of the rows.
"""

import os
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from multigrain_jax.descriptors.folder import DescriptorSettings
from multigrain_jax.descriptors.index_file import read_open_index
from multigrain_jax.descriptors.merging import merge_devices, merge_hosts
from multigrain_jax.descriptors.opening import Fits, OpenFolder, open_folder
from multigrain_jax.descriptors.roots import rebased
from multigrain_jax.descriptors.shards import ShardFile
from multigrain_jax.distributed import host_rows
from multigrain_jax.errors import InputError
from multigrain_jax.mesh import DATA_AXIS, batch_sharding, make_own_mesh, put_replicated
from multigrain_jax.ops.refinement import (
    Reduction,
    require_neighbours,
    score_offsets,
)

# What the arrays of a search take at most, beside queries and results.
SEARCH_BYTES = 128 << 20
QUERIES_PER_STEP = 256
# Of so many rows at a time only the largest similarity is sorted at first.
CHUNK = 128
NOTHING = -1


class ScoreNormalization(NamedTuple):
    """Makes the similarities of different queries comparable, as `normalize_scores`.

    Attributes:
        training: descriptors of images that no query shows.
        num_neighbours: n, at most as many as there are.
        weight: of what is subtracted.
        reduction: whether that is the n-th largest similarity to them, or the mean of
            the n largest.
    """

    training: "DescriptorIndex"
    num_neighbours: int
    weight: float
    reduction: Reduction = "nth"


class DescriptorIndex:
    """A collection of descriptors that can be searched.

    Attributes:
        dim: D.
        live: bool [N]; False are rows of images that are gone or have changed.
        settings: how the descriptors were made; None where that is not known.
        opened: the folder of descriptors as it was opened; None where there is none.
    """

    def __init__(
        self,
        shards: Sequence[Path | ShardFile | np.ndarray],
        *,
        live: np.ndarray | None = None,
    ):
        """Number the rows of all shards one after the other.

        Args:
            shards: [n, D] arrays of one dtype, or .npy files, at least one.
            live: bool [N], rows that can be found; None is all.
        """
        self._shards = [
            ShardFile(shard) if isinstance(shard, Path) else shard for shard in shards
        ]
        shapes = [shard.shape for shard in self._shards]
        self._starts = np.cumsum([0, *(shape[0] for shape in shapes)])
        self._dtype = self._shards[0].dtype
        self.opened: OpenFolder | None = None
        self._moved: tuple[str, str] | None = None
        self.dim: int = shapes[0][1]
        self.live = np.ones(len(self), bool) if live is None else live
        self.settings: DescriptorSettings | None = None

    @classmethod
    def open(cls, path: str | Path, *, fits: Fits | None = None) -> Self:
        """Open a folder of descriptors, or a workdir of the task `embed`.

        Sizes and the index are checked now, and the digest of each shard when it is
        first read. What a writer adds later is not seen.

        Args:
            path: the folder; of several in a workdir, the newest is taken.
            fits: of several, the newest of which it says so, by its settings.

        Raises:
            InputError: no such folder, no descriptors in it, or damage.
        """
        opened = open_folder(path, fits=fits)
        index = cls(opened.shards, live=opened.live)
        index.opened = opened
        index.settings = opened.head.settings
        weakref.finalize(index, os.close, opened.index)
        return index

    def verify(self) -> None:
        """Compare the digests of all shards with rows of this host now.

        Raises:
            InputError: one is not as it was written.
        """
        own = host_rows(len(self))
        for shard, start in zip(self._shards, self._starts, strict=False):
            is_own = start < own.stop and start + shard.shape[0] > own.start
            if isinstance(shard, ShardFile) and is_own:
                shard.verify()

    def move(self, old: str, new: str) -> None:
        """Let `paths` tell images below `old` as they are below `new`."""
        self._moved = (old, new)

    def __len__(self) -> int:
        """N: rows, those that are not live among them."""
        return int(self._starts[-1])

    def paths(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """The image that each row belongs to; the index is read for this."""
        if self.opened is None:
            return [str(row) for row in rows]
        wanted = dict.fromkeys(int(row) for row in rows)
        found: dict[int, str] = {}
        number = 0
        folder, head, index = self.opened[:3]
        for line in read_open_index(index, head, folder=folder):
            if line.shard is not None:
                if number in wanted:
                    path = line.image.path
                    found[number] = rebased(path, *self._moved) if self._moved else path
                number += 1
        return [found[int(row)] for row in rows]

    def read(self, first: int, count: int, *, end: int | None = None) -> np.ndarray:
        """Rows first … first + count - 1 as [count, D]; zeros from `end` on, or N."""
        block = np.zeros((count, self.dim), self._dtype)
        stop = first + count if end is None else min(first + count, end)
        number = int(np.searchsorted(self._starts, first, side="right")) - 1
        while number < len(self._shards) and self._starts[number] < stop:
            start = int(self._starts[number])
            # Mapped for this read only: pages that stay mapped count as memory.
            shard = self._shards[number]
            whole = shard.open() if isinstance(shard, ShardFile) else shard
            part = whole[max(0, first - start) : stop - start]
            offset = max(0, start - first)
            block[offset : offset + len(part)] = part
            number += 1
        return block

    def read_padded(
        self, first: int, count: int, *, end: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`read`, and which of the rows are live: bool [count]."""
        live = np.zeros(count, bool)
        known = self.live[:end][first : first + count]
        live[: len(known)] = known
        return self.read(first, count, end=end), live

    def search(
        self,
        descriptors: np.ndarray,
        k: int = 10,
        *,
        normalization: ScoreNormalization | None = None,
        block_bytes: int = SEARCH_BYTES,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of largest inner product for each query, exactly.

        Args:
            descriptors: [Q, D] queries, on all hosts the same.
            k: how many, at least 1.
            normalization: of the similarities; the order of one query's rows stays.
            block_bytes: memory of the search.

        Returns:
            Similarities float32 [Q, k], descending, and rows int64 [Q, k]; equal
            similarities in the order of the rows. Where fewer than k rows are live,
            -inf and -1.

        Raises:
            InputError: queries of another width, or not finite.
        """
        queries = self.checked(descriptors)
        if k < 1:
            raise InputError(f"k: found {k}, expected at least 1 neighbour; raise it")
        mesh, own = make_own_mesh(), host_rows(len(self))
        per_step = min(QUERIES_PER_STEP, 1 << (max(1, len(queries)) - 1).bit_length())
        step = _search_step(mesh, k)
        state = [
            (part, *_nothing_found(mesh, per_step, k))
            for part in _query_blocks(mesh, queries, per_step)
        ]
        count = self._block_rows(mesh, k, per_step, block_bytes)
        for first in range(own.start, own.stop, count):
            block, live = jax.device_put(
                self.read_padded(first, count, end=own.stop), batch_sharding(mesh)
            )
            # One block is read while the last one is searched, and no more wait.
            jax.block_until_ready(state)
            state = [
                (part, *step(part, block, live, np.int32(first), values, rows))
                for part, values, rows in state
            ]
        similarities, rows = merge_hosts(
            *merge_devices([found[1:] for found in state], len(queries), k)
        )
        if normalization is not None:
            similarities -= offsets_of(queries, normalization, block_bytes)[:, None]
        return similarities, rows

    def checked(self, descriptors: np.ndarray) -> np.ndarray:
        """Queries [Q, D] in float32; InputError for others than can be searched."""
        queries = np.asarray(descriptors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(
                f"descriptors: found shape {queries.shape}, expected (Q, {self.dim}), "
                "as the database has them; embed the queries with the same checkpoint"
            )
        strange = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(strange):
            raise InputError(
                f"descriptors: found NaN or infinity in {len(strange)} of "
                f"{len(queries)} rows, the first of them {strange[0]}, expected "
                "numbers; leave these rows out, and look at their images"
            )
        return queries

    def _block_rows(
        self, mesh: Mesh, k: int, num_queries: int, block_bytes: int
    ) -> int:
        """Rows per block: what fits, for each device a multiple of `CHUNK`."""
        stored = 2 * self._dtype.itemsize * self.dim  # on the host, on the device
        per_row = 2 * stored + 4 * self.dim + 2 * 4 * num_queries
        unit = CHUNK * mesh.size
        fitting = block_bytes // per_row // unit * unit
        own = host_rows(len(self))
        needed = -(-max(own.stop - own.start, k * mesh.size) // unit) * unit
        return min(needed, max(fitting, -(-k // CHUNK) * unit))


def _query_blocks(mesh: Mesh, queries: np.ndarray, size: int) -> list[jax.Array]:
    blocks = []
    for start in range(0, len(queries), size):
        block = np.zeros((size, queries.shape[1]), np.float32)
        part = queries[start : start + size]
        block[: len(part)] = part
        blocks.append(put_replicated(mesh, block))
    return blocks


def _nothing_found(mesh: Mesh, num_queries: int, k: int) -> tuple[jax.Array, jax.Array]:
    shape = (mesh.size, num_queries, k)
    return jax.device_put(
        (np.full(shape, -np.inf, np.float32), np.full(shape, NOTHING, np.int32)),
        batch_sharding(mesh),
    )


@lru_cache
def _search_step(mesh: Mesh, k: int):
    """Compile `(queries, block, live, first, values, rows) -> (values, rows)`.

    Each device keeps the k best of the rows that it has seen: [devices, Q, k].
    """

    def step(queries, block, live, first, values, rows):
        similarity = jnp.matmul(
            queries,
            block.astype(jnp.float32).T,
            precision=jax.lax.Precision.HIGHEST,
        )
        similarity = jnp.where(live[None], similarity, -jnp.inf)
        new_values, new = top_k_of_chunks(similarity, k)
        new = new + first + jax.lax.axis_index(DATA_AXIS) * len(block)
        new = jnp.where(jnp.isneginf(new_values), NOTHING, new)
        # Of equals the first stays first: what was found has the smaller rows.
        values, places = jax.lax.top_k(jnp.concatenate([values[0], new_values], 1), k)
        rows = jnp.take_along_axis(jnp.concatenate([rows[0], new], 1), places, axis=1)
        return values[None], rows[None]

    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    return jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(whole, split, split, whole, split, split),
            out_specs=(split, split),
        ),
        donate_argnums=(4, 5),
    )


def top_k_of_chunks(similarity: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of [Q, N], to the tie, for N much larger than k.

    The k largest are in the k chunks of largest maximum, where of equal maxima the
    first chunks are taken: any other chunk has k values before its own.

    Args:
        similarity: [Q, N], N a multiple of `CHUNK`.
        k: at most N.

    Returns:
        Values [Q, k] and indices int32 [Q, k].
    """
    num_queries, width = similarity.shape
    if width // CHUNK <= k:
        return jax.lax.top_k(similarity, k)
    chunks = similarity.reshape(num_queries, width // CHUNK, CHUNK)
    _, best = jax.lax.top_k(chunks.max(axis=2), k)
    best = jnp.sort(best, axis=1)
    candidates = jnp.take_along_axis(chunks, best[:, :, None], axis=1)
    values, places = jax.lax.top_k(candidates.reshape(num_queries, k * CHUNK), k)
    chosen = jnp.take_along_axis(best, places // CHUNK, axis=1)
    return values, chosen * CHUNK + places % CHUNK


def offsets_of(
    queries: np.ndarray, normalization: ScoreNormalization, block_bytes: int
) -> np.ndarray:
    """What is subtracted from the similarities of each query, float32 [Q]."""
    training, k, weight, reduction = normalization
    require_neighbours(k, int(training.live.sum()))
    nearest, _ = training.search(queries, k, block_bytes=block_bytes)
    return score_offsets(nearest, weight=weight, reduction=reduction)
