"""Duplicates of a collection: looked for once, then grouped as the page asks."""

import hashlib
import threading
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from multigrain_jax.browse.collection import Collection
from multigrain_jax.browse.neighbours import NeighbourSearch
from multigrain_jax.browse.pairs import Pairs, find_pairs, group_alive
from multigrain_jax.browse.photo_files import PhotoFiles
from multigrain_jax.data.decoding import Decoding, UndecodableImageError, encoded_size
from multigrain_jax.descriptors.grouping import Linkage
from multigrain_jax.descriptors.joined import unit_rows

# Files of equal size are compared where photos are as similar.
SAME_PHOTO = 0.999
# Of larger groups, so many photos are compared for their lowest similarity.
MAX_COMPARED = 1000
# A block of the search, or a file, that is under way is waited for.
CLOSE_TIMEOUT_S = 30.0
SIMILAR, EXACT = "similar", "exact"
KINDS = (SIMILAR, EXACT)


class Facts(NamedTuple):
    """What tells which of several files is the best one.

    Attributes:
        width: in pixels; 0: not readable.
        height: as well.
        size: of the file, in bytes.
        mtime_ns: when it was written.
    """

    width: int
    height: int
    size: int
    mtime_ns: int


class Duplicates:
    """The duplicates of a collection."""

    def __init__(
        self,
        collection: Collection,
        files: PhotoFiles,
        search: NeighbourSearch,
        *,
        decoding: Decoding,
        lowest: float,
    ):
        """Look for nothing yet.

        Args:
            collection: the photos.
            files: reads them.
            search: knows their descriptors.
            decoding: how photos become pixels.
            lowest: the similarity of the least similar pairs.
        """
        self._collection = collection
        self._files = files
        self._search = search
        self._decoding = decoding
        self._wanted = lowest
        self._lock = threading.Lock()
        self._state, self._progress, self._error = "idle", 0.0, ""
        self._started = 0.0
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._pairs: Pairs | None = None
        self._digests: dict[int, str] = {}
        self._facts: dict[int, Facts] = {}
        self._grouped: tuple[object, list[np.ndarray]] | None = None

    def start(self) -> None:
        """Look for them in a thread, if that was not begun."""
        with self._lock:
            if self._state in ("pairs", "files", "ready"):
                return
            self._state, self._progress = "pairs", 0.0
            self._started = time.monotonic()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Break off the search, which would go on while Python comes down."""
        self._is_closing = True
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def status(self) -> dict[str, str | float]:
        """How far that is."""
        return {
            "state": self._state,
            "progress": self._progress,
            "seconds": time.monotonic() - self._started if self._started else 0.0,
            "error": self._error,
            "lowest_threshold": self._pairs.lowest if self._pairs else self._wanted,
            "num_pairs": len(self._pairs.rows) if self._pairs else 0,
        }

    def groups(self, threshold: float, linkage: Linkage, kind: str) -> list[np.ndarray]:
        """Groups of rows that are shown, the largest first.

        Args:
            threshold: least similarity.
            linkage: of the similar ones, which groups.
            kind: "similar" photos, or files of "exact"ly the same bytes.
        """
        if self._pairs is None:
            return []
        alive = self._collection.alive
        key = threshold, linkage, kind, alive.tobytes()
        with self._lock:
            if self._grouped is not None and self._grouped[0] == key:
                return self._grouped[1]
        if kind == EXACT:
            groups = self._exact()
        else:
            groups = group_alive(
                self._pairs, alive, threshold=threshold, linkage=linkage
            )
        with self._lock:
            self._grouped = key, groups
        return groups

    def lowest(self, rows: np.ndarray) -> float:
        """The similarity of the least alike two of the first `MAX_COMPARED`."""
        # Storing has rounded their lengths.
        descriptors = unit_rows(self._search.descriptors(rows[:MAX_COMPARED]))
        return float(np.clip((descriptors @ descriptors.T).min(), -1, 1))

    def are_exact(self, rows: np.ndarray) -> bool:
        """Whether files are known to have the same bytes."""
        return len({self._digests.get(row, str(row)) for row in rows.tolist()}) == 1

    def digest(self, row: int) -> str | None:
        """The SHA-256 of a file, where it was needed."""
        return self._digests.get(row)

    def facts(self, row: int) -> Facts:
        """What tells which file is the best one."""
        if row not in self._facts:
            stamp = self._collection.stamp(row)
            width, height = 0, 0
            try:
                with self._files.opened(row) as file:
                    width, height = encoded_size(file, self._decoding)
            except (OSError, UndecodableImageError):
                pass
            self._facts[row] = Facts(width, height, stamp.size, stamp.mtime_ns)
        return self._facts[row]

    def suggested(self, rows: np.ndarray) -> int:
        """Which to keep: the largest picture, the largest file, then the oldest."""

        def rank(row: int) -> tuple[int, int, int, int]:
            facts = self.facts(row)
            return (-facts.width * facts.height, -facts.size, facts.mtime_ns, row)

        return min(rows.tolist(), key=rank)

    def _look(self) -> None:
        try:
            found = find_pairs(
                self._collection.index, self._wanted, on_progress=self._advance
            )
            self._state, self._progress = "files", 0.0
            self._compare_files(found)
            self._pairs = found
            self._state, self._progress = "ready", 1.0
        except Exception as error:
            self._error, self._state = str(error) or type(error).__name__, "failed"

    def _advance(self, share: float) -> None:
        if self._is_closing:
            raise InterruptedError("the server has ended")
        self._progress = share

    def _compare_files(self, found: Pairs) -> None:
        """Find which files of equal size, of photos that are the same, are equal."""
        same = found.rows[found.similarities >= SAME_PHOTO]
        pairs = np.concatenate([same, found.copies])
        # Millions of pairs are of far fewer photos.
        rows, places = np.unique(pairs, return_inverse=True)
        sizes = np.array([self._collection.stamp(r).size for r in rows.tolist()], int)
        of_pairs = sizes[places.reshape(pairs.shape)]
        equal = (of_pairs[:, 0] == of_pairs[:, 1]) & (of_pairs[:, 0] > 0)
        wanted = np.unique(pairs[equal]).tolist()
        for done, row in enumerate(wanted):
            self._advance(done / len(wanted))
            try:
                with self._files.opened(row) as file:
                    digest = hashlib.file_digest(file, "sha256")
                self._digests[row] = digest.hexdigest()
            except OSError:
                continue

    def _exact(self) -> list[np.ndarray]:
        same: dict[str, list[int]] = defaultdict(list)
        for row, digest in sorted(self._digests.items()):
            if self._collection.alive[row]:
                same[digest].append(row)
        groups = [np.array(rows, np.int64) for rows in same.values() if len(rows) > 1]
        return sorted(groups, key=lambda rows: (-len(rows), rows[0]))
