"""What perceptual hashes find in a collection of descriptors, beside the network."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.bucket_paths import file_path
from multigrain_jax.data.decoding import Decoding
from multigrain_jax.descriptors.grouping import Linkage, group_pairs
from multigrain_jax.descriptors.hash_pairs import distances_of, near_hashes
from multigrain_jax.descriptors.joined import JoinedIndex, as_similarities
from multigrain_jax.descriptors.near_duplicates import MAX_PAIRS, NearDuplicates, Rule
from multigrain_jax.descriptors.photo_hashes import READY, PhotoHashes, hash_files
from multigrain_jax.tasks.duplicate_tables import HASH, MIRROR, NETWORK, Pair

PAIRS_AT_ONCE = 4096


class Votes(NamedTuple):
    """Who finds a pair.

    Attributes:
        hashes: of all rows; None where none were made.
        most: in how many bits they may differ.
        threshold: the network's least similarity.
    """

    hashes: PhotoHashes | None
    most: int
    threshold: float

    def __call__(self, pairs: np.ndarray, similarities: np.ndarray) -> Iterator[Pair]:
        """The lines of pairs [P, 2] of these similarities [P], in their order."""
        if self.hashes is None:
            for (a, b), similarity in zip(
                pairs.tolist(), similarities.tolist(), strict=True
            ):
                yield Pair(a, b, similarity, NETWORK)
            return
        bits, mirrored = distances_of(self.hashes, pairs)
        known = (self.hashes.states[pairs] == READY).all(axis=1)
        for number, (a, b) in enumerate(pairs.tolist()):
            similarity = float(similarities[number])
            found = [NETWORK] if similarity >= self.threshold else []
            if bits[number] <= self.most:
                found.append(MIRROR if mirrored[number] else HASH)
            distance = int(bits[number]) if known[number] else None
            # What another row of the same photo was found for is found too.
            yield Pair(a, b, similarity, " and ".join(found) or NETWORK, distance)

    def count(self, pairs: np.ndarray, similarities: np.ndarray) -> dict[str, float]:
        """How many pairs the network, the hashes and both of them find."""
        if self.hashes is None:
            return {}
        by_hash = distances_of(self.hashes, pairs)[0] <= self.most
        by_network = similarities >= self.threshold
        return {
            "num_pairs_by_network": int(by_network.sum()),
            "num_pairs_by_hash": int(by_hash.sum()),
            "num_pairs_by_both": int(np.sum(by_hash & by_network)),
        }

    def by_hash_alone(self, pairs: np.ndarray, similarities: np.ndarray) -> list[int]:
        """Rows that the network finds no pair of, and the hashes do."""
        if self.hashes is None:
            return []
        by_network = similarities >= self.threshold
        return np.setdiff1d(pairs[~by_network], pairs[by_network]).tolist()


def hashes_of_rows(joined: JoinedIndex, *, decoding: Decoding) -> PhotoHashes:
    """The hashes of all live rows whose photos are files; of others there are none."""
    count = len(joined)
    live = np.flatnonzero(joined.live)
    paths = [path if file_path(path).is_file() else "" for path in joined.paths(live)]
    made = hash_files(paths, decoding=decoding, watched=True)
    found = PhotoHashes(
        np.zeros((count, 2), np.uint64),
        np.zeros((count, 2), np.uint64),
        np.full(count, READY + 1, np.uint8),
    )
    for whole, values in zip(found, made, strict=True):
        whole[live] = values
    return found


def with_hash_pairs(
    found: NearDuplicates,
    joined: JoinedIndex,
    votes: Votes,
    *,
    linkage: Linkage,
    rule: Rule,
    labels: np.ndarray | None,
) -> NearDuplicates:
    """Near duplicates, joined by the pairs that hashes alone find.

    Args:
        found: by the network.
        joined: the collections; of two, pairs are of a row of each.
        votes: with the hashes; without them nothing is joined.
        linkage: which groups the pairs form.
        rule: which rows may be a pair, as `near_duplicates` has it.
        labels: of the rows; None: all may.
    """
    if votes.hashes is None:
        return found
    near = near_hashes(votes.hashes, votes.most, limit=MAX_PAIRS)
    copies = np.sort(near.copies, axis=1)
    pairs = _allowed(np.concatenate([near.pairs, copies]), joined, rule, labels)
    known = found.pairs[:, 0] * len(joined) + found.pairs[:, 1]
    pairs = pairs[~np.isin(pairs[:, 0] * len(joined) + pairs[:, 1], known)]
    similarities = np.concatenate([found.similarities, _similarities(joined, pairs)])
    pairs = np.concatenate([found.pairs, pairs])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, similarities = pairs[order], similarities[order]
    groups = group_pairs(
        pairs, similarities, threshold=-1, linkage=linkage, copies=found.copies
    )
    return found._replace(pairs=pairs, similarities=similarities, groups=groups)


def _allowed(
    pairs: np.ndarray, joined: JoinedIndex, rule: Rule, labels: np.ndarray | None
) -> np.ndarray:
    allowed = np.ones(len(pairs), bool)
    if len(joined.parts) > 1:
        allowed = (pairs[:, 0] < joined.starts[1]) & (pairs[:, 1] >= joined.starts[1])
    if labels is not None:
        own = labels[pairs]
        allowed &= (own >= 0).all(axis=1)
        if rule != "any":
            allowed &= (own[:, 0] == own[:, 1]) == (rule == "same")
    return pairs[allowed]


def _similarities(joined: JoinedIndex, pairs: np.ndarray) -> np.ndarray:
    """The network's similarity of each pair, float32 [P]."""
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        rows, places = np.unique(part, return_inverse=True)
        descriptors = joined.read_rows(rows)
        left, right = descriptors[places.reshape(-1, 2)].swapaxes(0, 1)
        products = np.einsum("nd,nd->n", left, right)
        found[start : start + len(part)] = as_similarities(products)
    return found
