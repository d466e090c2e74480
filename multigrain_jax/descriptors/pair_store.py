"""The most similar of more pairs than memory is to hold."""

import numpy as np

# Pairs may wait until they are this share more than are kept.
SLACK = 0.25


class PairStore:
    """Keeps the most similar pairs of all that it is given, at most `limit` of them.

    Of equal similarities those of the smaller rows are kept, whatever the order in
    which they come.

    Attributes:
        floor: a pair that is less similar is not among them; -inf until some were let
            go.
    """

    def __init__(self, limit: int):
        """Hold no pairs yet, and `limit` at most."""
        self._limit = limit
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0
        self.floor = -np.inf

    def add(self, pairs: np.ndarray, similarities: np.ndarray) -> None:
        """Take int [n, 2] rows a < b, no pair twice, and float32 [n]."""
        if not len(pairs):
            return
        self._parts.append((pairs.astype(np.int32), similarities))
        self._count += len(pairs)
        if self._count > self._limit * (1 + SLACK):
            self._let_go()

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [P, 2], by a and then b, and float32 [P]; the store is empty then."""
        if self._count > self._limit:
            self._let_go()
        pairs, similarities = self._all()
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        return pairs[order].astype(np.int64), similarities[order]

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        parts, self._parts = self._parts, []
        pairs = [np.zeros((0, 2), np.int32), *(part[0] for part in parts)]
        similarities = [np.zeros(0, np.float32), *(part[1] for part in parts)]
        return np.concatenate(pairs), np.concatenate(similarities)

    def _let_go(self) -> None:
        pairs, similarities = self._all()
        place = len(similarities) - self._limit
        floor = np.partition(similarities, place)[place]
        kept = similarities > floor
        equal = np.flatnonzero(similarities == floor)
        room = self._limit - int(kept.sum())
        # One number for a pair, which orders them by a and then b.
        numbers = (pairs[equal, 0].astype(np.int64) << 32) | pairs[equal, 1]
        last = np.partition(numbers, room - 1)[room - 1]
        kept[equal[numbers <= last]] = True
        self.floor = float(floor)
        self._parts = [(pairs[kept], similarities[kept])]
        self._count = self._limit
