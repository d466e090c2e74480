"""Pairs of a collection that are nearly the same, and the groups that they form."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from multigrain_jax.descriptors.grouping import Linkage, group_pairs
from multigrain_jax.descriptors.index import CHUNK, SEARCH_BYTES, DescriptorIndex
from multigrain_jax.descriptors.joined import TOLERANCE, JoinedIndex
from multigrain_jax.descriptors.pair_store import PairStore
from multigrain_jax.descriptors.same_content import many_copies
from multigrain_jax.mesh import batch_sharding, make_mesh, put_replicated, replicated
from multigrain_jax.ops.pooling import NORM_EPSILON

MAX_PAIRS = 20_000_000
# Of a block that is searched, pairs are listed from so many rows at a time.
ROWS_PER_LIST = 256

# Which rows may be a pair, by their labels.
Rule = Literal["any", "same", "different"]


class NearDuplicates(NamedTuple):
    """What is nearly the same in a collection.

    Attributes:
        pairs: int64 [P, 2], rows a < b, sorted by a and then b.
        similarities: float32 [P], of each pair, in [-1, 1].
        groups: ascending rows that belong together; the largest groups first, of equal
            ones that of the smallest row.
        copies: int64 [C, 2], rows whose descriptor equals that of an earlier row, and
            that row: there are too many of them to list each with each, and the first
            of the two is in no pair.
        lowest_kept: the similarity below which no pair was kept, since there were too
            many; None where all are there.
    """

    pairs: np.ndarray
    similarities: np.ndarray
    groups: list[np.ndarray]
    copies: np.ndarray = np.zeros((0, 2), np.int64)
    lowest_kept: float | None = None

    def rows(self) -> np.ndarray:
        """All rows that are in a pair or a copy, ascending."""
        return np.unique(np.concatenate([self.pairs.ravel(), self.copies.ravel()]))


def near_duplicates(
    index: DescriptorIndex,
    threshold: float,
    *,
    linkage: Linkage,
    reference: DescriptorIndex | None,
    rule: Rule = "any",
    labels: np.ndarray | None = None,
    block_bytes: int = SEARCH_BYTES,
    on_progress: Callable[[float], None] = lambda share: None,
) -> NearDuplicates:
    """All pairs of live rows that are at least as similar as `threshold`, exactly.

    Similarity is the inner product at unit length, which storing has rounded, within
    [-1, 1]; from 1 - `TOLERANCE` on it is 1. Of more than `MAX_PAIRS` pairs, the most
    similar are kept. More than `MANY_COPIES` rows that are equal to the bit are
    `copies` of the first of them, where all of them may be pairs.

    Args:
        index: the collection.
        threshold: least similarity, from -1 to 1.
        linkage: which groups the pairs form.
        reference: another collection, the rows of which are numbered after those of
            `index`: pairs are of a row of each. None: pairs are within `index`.
        rule: "any", or whether the rows of a pair have the same label or different
            ones.
        labels: int32 [N] for each row, of both collections; negative: in no pair.
        block_bytes: memory of the search, beside the pairs.
        on_progress: told the share of the search that is done, from 0 to 1.
    """
    joined = JoinedIndex(*[index] if reference is None else [index, reference])
    live = joined.live if labels is None else joined.live & (labels >= 0)
    copies = np.zeros((0, 2), np.int64)
    if reference is None and rule != "different":
        copies = many_copies(joined, live, labels if rule == "same" else None)
        live = live.copy()
        live[copies[:, 0]] = False
    if labels is None:
        labels = np.zeros(len(joined), np.int32)
    store = PairStore(MAX_PAIRS)
    for share in _search(joined, store, threshold, rule, live, labels, block_bytes):
        on_progress(share)
    pairs, similarities = store.sorted()
    return NearDuplicates(
        pairs,
        similarities,
        group_pairs(pairs, similarities, threshold=-1, linkage=linkage, copies=copies),
        copies,
        store.floor if np.isfinite(store.floor) else None,
    )


def without_links(
    found: NearDuplicates, identities: Mapping[int, Hashable], *, linkage: Linkage
) -> tuple[NearDuplicates, dict[int, int]]:
    """Near duplicates among photos, where several rows may be one photo.

    Args:
        found: among rows.
        identities: of each row in a pair or a copy, what tells photos apart.
        linkage: which groups the pairs form.

    Returns:
        The same among the first row of each photo, and the other rows with that first
        one.
    """
    first: dict[Hashable, int] = {}
    photo = {row: first.setdefault(identities[row], row) for row in sorted(identities)}
    links = {row: own for row, own in photo.items() if row != own}
    if not links:
        return found, links
    rows = np.array(list(photo), np.int64)
    photos = np.array(list(photo.values()), np.int64)
    own = np.sort(photos[np.searchsorted(rows, found.pairs)].reshape(-1, 2), axis=1)
    # Of pairs of the same two photos, the first counts.
    pairs, places = np.unique(own, axis=0, return_index=True)
    apart = pairs[:, 0] != pairs[:, 1]
    pairs, similarities = pairs[apart], found.similarities[places[apart]]
    copies = photos[np.searchsorted(rows, found.copies)].reshape(-1, 2)
    copies = np.unique(copies[copies[:, 0] != copies[:, 1]], axis=0)
    groups = group_pairs(
        pairs, similarities, threshold=-1, linkage=linkage, copies=copies
    )
    return found._replace(
        pairs=pairs, similarities=similarities, groups=groups, copies=copies
    ), links


def _search(
    joined: JoinedIndex,
    store: PairStore,
    threshold: float,
    rule: Rule,
    live: np.ndarray,
    labels: np.ndarray,
    block_bytes: int,
) -> Iterator[float]:
    """Give all pairs to the store, a block of rows against another at a time.

    Yields the share that is done.
    """
    mesh = make_mesh()
    step = _pair_step(mesh, rule)
    unit = CHUNK * mesh.size
    # Similarities and, beside them, which are large: about 6 bytes a pair, 2 in flight.
    side = int((block_bytes / 12) ** 0.5) // unit * unit
    longest = max(len(part) for part in joined.parts)
    side = max(unit, min(side, -(-longest // unit) * unit))

    def block(part: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = int(joined.starts[part]) + first
        count = min(side, len(joined.parts[part]) - first)
        padded = np.zeros(side, bool), np.zeros(side, np.int32)
        padded[0][:count] = live[start : start + count]
        padded[1][:count] = labels[start : start + count]
        return joined.parts[part].read(first, side), *padded

    split, other, done = batch_sharding(mesh), len(joined.parts) - 1, 0
    lefts, rights = (-(-len(joined.parts[n]) // side) for n in (0, other))
    steps = lefts * rights if other else lefts * (lefts + 1) // 2
    for first in range(0, len(joined.parts[0]), side):
        left = put_replicated(mesh, block(0, first))
        for second in range(0 if other else first, len(joined.parts[other]), side):
            yield done / steps
            done, start = done + 1, second
            second += int(joined.starts[other])
            # Where copies were left out, hardly any row may be left.
            if not live[first:][:side].any() or not live[second:][:side].any():
                continue
            right = jax.device_put(block(other, start), split)
            least = max(min(threshold, 1 - TOLERANCE), store.floor)
            similarity, packed, found = step(
                *left, *right, np.float32(least), np.int32(second - first)
            )
            if int(found):
                similarity = np.asarray(similarity)
                for b, a in _unpack(np.asarray(packed)):
                    pairs = np.stack([a + first, b + second], axis=1)
                    store.add(pairs, similarity[b, a])
    yield 1.0


@lru_cache
def _pair_step(mesh: Mesh, rule: Rule):
    """Compile `(left, live, labels, right, live, labels, threshold, offset) -> …`.

    Similarities [right, left], whether they count as bits uint8 [right, left / 8], and
    how many do. The block of the right begins `offset` rows after that of the left.
    """

    def at_unit_length(rows):
        rows = rows.astype(jnp.float32)
        lengths = jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))
        return rows / jnp.maximum(lengths, NORM_EPSILON)

    def step(
        left, left_live, left_labels, right, right_live, right_labels, threshold, offset
    ):
        product = jnp.matmul(
            at_unit_length(right),
            at_unit_length(left).T,
            precision=jax.lax.Precision.HIGHEST,
        )
        similarity = jnp.where(product >= 1 - TOLERANCE, 1.0, jnp.maximum(product, -1))
        a = jnp.arange(len(left), dtype=jnp.int32)[None, :]
        b = jnp.arange(len(right), dtype=jnp.int32)[:, None] + offset
        wanted = (similarity >= threshold) & (a < b)
        wanted = wanted & left_live[None, :] & right_live[:, None]
        if rule != "any":
            equal = left_labels[None, :] == right_labels[:, None]
            wanted = wanted & (equal if rule == "same" else ~equal)
        return similarity, jnp.packbits(wanted, axis=1), jnp.sum(wanted)

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(*[whole] * 3, *[split] * 3, whole, whole),
        out_shardings=(split, split, whole),
    )


def _unpack(packed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row and column of every bit that is set, some rows at a time."""
    for start in range(0, len(packed), ROWS_PER_LIST):
        # Most bytes are zero.
        rows, bytes_ = np.nonzero(packed[start : start + ROWS_PER_LIST])
        if len(rows):
            bits = np.unpackbits(packed[start + rows, bytes_][:, None], axis=1)
            which, bit = np.nonzero(bits)
            yield start + rows[which], bytes_[which] * 8 + bit
