"""An approximate index of FAISS: a file per part, written whole.

Inverted lists of product-quantised rows (`ivf_pq`), a graph (`hnsw`) or, for few rows,
all of them (`flat`). Memory: of a search the files, which are mapped and searched one
by one; of an update one part, a block of rows, and once the sample that lists are
learnt from.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.descriptors.approximate.engine import (
    NOTHING,
    Effort,
    Part,
    Rows,
    Stored,
)
from multigrain_jax.descriptors.approximate.record import (
    damaged,
    is_utf8,
    not_installed,
)
from multigrain_jax.descriptors.shards import HashingFile
from multigrain_jax.errors import InputError
from multigrain_jax.files import file_digest, require_content, write_durably

KINDS = ("flat", "hnsw", "ivf_pq")
# "auto": the exact products of so many rows take milliseconds, and a graph of so many
# is built in minutes.
FLAT_ROWS = 50_000
HNSW_ROWS = 500_000
# The values of each byte of a code are learnt from more rows than there are values.
LEAST_ROWS = 256
ROWS_PER_LIST = 40


class FaissOptions(NamedTuple):
    """What an index is to be.

    Attributes:
        kind: one of `KINDS`, or "auto" by the number of rows.
        num_lists: of `ivf_pq`; None: 4 · √rows, as far as the sample goes.
        num_code_bytes: of `ivf_pq`, per row; None: half of D.
        num_links: of `hnsw`, per row and level (M).
        ef_construction: of `hnsw`, how thoroughly neighbours are looked for.
        seed: of what is learnt.
    """

    kind: str
    num_lists: int | None
    num_code_bytes: int | None
    num_links: int
    ef_construction: int
    seed: int


class FaissEngine:
    """The engine of files; see `Engine`."""

    in_place = False

    def __init__(
        self, folder: Path, options: FaissOptions, *, dim: int, made: dict[str, Any]
    ):
        """Open what is in a folder.

        Args:
            folder: of the index.
            options: what it is to be.
            dim: D.
            made: what `create` returned; empty before that.

        Raises:
            InputError: faiss is not installed.
        """
        try:
            import faiss
        except ImportError as error:
            raise not_installed(
                "faiss", "faiss", folder=folder, made=made, instead="milvus"
            ) from error
        self._faiss: Any = faiss
        self._folder = folder
        self._options = options
        self._dim = dim
        self._made = made
        self._open: dict[str, Any] = {}  # file -> index, mapped
        self._last: tuple[str, Any] | None = None  # the part that was written last

    @property
    def can_remove(self) -> bool:
        """Whether rows leave a part; a graph keeps them until it is made anew."""
        return self._made.get("kind") != "hnsw"

    def create(self, sample: np.ndarray, *, num_rows: int) -> dict[str, Any]:
        """Decide what to build, and learn its lists and codes from the sample."""
        kind = self._options.kind
        if kind == "auto":
            kind = "ivf_pq" if num_rows > HNSW_ROWS else "hnsw"
            kind = "flat" if num_rows <= FLAT_ROWS else kind
        if kind == "ivf_pq" and len(sample) < LEAST_ROWS:
            raise InputError(
                f"kind: found 'ivf_pq' for a sample of {len(sample)} rows, expected at "
                f"least {LEAST_ROWS} to learn from; raise train_rows, or choose "
                "--config.kind=auto"
            )
        index, made = self._empty(kind, len(sample), num_rows)
        if kind == "ivf_pq":
            index.cp.seed = index.pq.cp.seed = self._options.seed
            # The sample is as large as it is: no word about that on the terminal.
            index.cp.min_points_per_centroid = 1
            index.pq.cp.min_points_per_centroid = 1
            index.pq.cp.max_points_per_centroid = LEAST_ROWS
        index.train(sample)
        name = f"trained-{secrets.token_hex(8)}.faiss"
        stored = self._write(name, index)
        self._made = {**made, "file": name, "digest": stored.digest}
        self._last = None
        self.close()
        return self._made

    def update(
        self, part: Part, *, remove: np.ndarray, add: Iterable[Rows], anew: bool
    ) -> Stored:
        """Write the part's file anew; the one before stays until nobody names it."""
        before = part.stored.file
        # Neither a second part stays in memory, nor the bytes of a file that goes.
        self._open.pop(before, None)
        if anew or self._last is None or self._last[0] != before:
            self._last = None
        if anew or not before:
            index = self._read(self._made["file"], self._made["digest"], mapped=False)
        elif self._last is not None:
            index, self._last = self._last[1], None
        else:
            index = self._read(before, part.stored.digest, mapped=False)
        if len(remove) and not anew:
            index.remove_ids(np.ascontiguousarray(remove))
        for numbers, rows in add:
            index.add_with_ids(np.ascontiguousarray(rows), numbers)
        name = f"part-{part.first_shard:06d}-{secrets.token_hex(8)}.faiss"
        stored = self._write(name, index)
        self._last = (name, index)
        return stored

    def search(
        self, parts: Sequence[Part], queries: np.ndarray, *, k: int, effort: Effort
    ) -> np.ndarray:
        """The best of all parts, by the scores that the index knows."""
        best = np.full((len(queries), k), -np.inf, np.float32)
        numbers = np.full((len(queries), k), NOTHING, np.int64)
        if not len(queries):
            return numbers
        parameters = self._parameters(k, effort)
        for part in parts:
            if not part.num_rows:
                continue
            index = self._mapped(part)
            scores, found = index.search(
                np.ascontiguousarray(queries), k, params=parameters
            )
            scores = np.where(found == NOTHING, -np.inf, scores).astype(np.float32)
            scores = np.concatenate([best, scores], axis=1)
            found = np.concatenate([numbers, found], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(scores, order, axis=1)
            numbers = np.take_along_axis(found, order, axis=1)
        return numbers

    def size(self, parts: Sequence[Part]) -> tuple[int, int]:
        """What the files hold, and their bytes."""
        rows = sum(self._mapped(part).ntotal for part in parts if part.stored.file)
        return int(rows), sum(part.stored.bytes for part in parts)

    def close(self) -> None:
        """Unmap the files."""
        self._open.clear()

    def _parameters(self, k: int, effort: Effort) -> Any:
        if self._made["kind"] == "ivf_pq":
            return self._faiss.SearchParametersIVF(nprobe=effort.num_probes)
        if self._made["kind"] == "hnsw":
            ef = max(effort.ef_search, k)
            return self._faiss.SearchParametersHNSW(efSearch=ef)
        return None

    def _empty(
        self, kind: str, num_sample: int, num_rows: int
    ) -> tuple[Any, dict[str, Any]]:
        """An index without rows, and what it is."""
        metric, made = self._faiss.METRIC_INNER_PRODUCT, {"kind": kind}
        if kind == "ivf_pq":
            most = max(1, num_sample // ROWS_PER_LIST)
            lists = self._options.num_lists or min(int(4 * num_rows**0.5), most)
            code_bytes = self._options.num_code_bytes or _code_bytes(self._dim)
            if self._dim % code_bytes:
                raise InputError(
                    f"num_code_bytes: found {code_bytes}, expected a divisor of the "
                    f"{self._dim} dimensions of a descriptor; choose one"
                )
            if lists > num_sample:
                raise InputError(
                    f"num_lists: found {lists}, expected at most {num_sample}, the "
                    "rows of the sample; lower it, or raise train_rows"
                )
            # Without the order of codes ("np") that only searches by their bits need.
            text = f"IVF{lists},PQ{code_bytes}np"
            index = self._faiss.index_factory(self._dim, text, metric)
            return index, {**made, "num_lists": lists, "num_code_bytes": code_bytes}
        if kind == "flat":
            return self._faiss.index_factory(self._dim, "IDMap,SQfp16", metric), made
        text = f"IDMap,HNSW{self._options.num_links}_SQfp16"
        index = self._faiss.index_factory(self._dim, text, metric)
        graph = self._faiss.downcast_index(index.index).hnsw
        graph.efConstruction = self._options.ef_construction
        return index, made

    def _write(self, name: str, index: Any) -> Stored:
        with write_durably(self._folder / name) as file:
            hashing = HashingFile(file)
            failed: list[OSError] = []

            def write(data: bytes) -> int:
                try:
                    hashing.write(data)
                except OSError as error:
                    failed.append(error)
                    raise
                return len(data)

            try:
                self._faiss.write_index(index, self._faiss.PyCallbackIOWriter(write))
            except Exception:
                # FAISS makes another error of that of a full disk.
                if failed:
                    raise failed[0] from None
                raise
        return Stored(name, hashing.size, hashing.digest())

    def _mapped(self, part: Part) -> Any:
        name = part.stored.file
        if name not in self._open:
            self._open[name] = self._read(name, part.stored.digest, mapped=True)
        return self._open[name]

    def _read(self, name: str, digest: str, *, mapped: bool) -> Any:
        """An index from its file, whose digest is compared.

        Raises:
            InputError: it is not what was written.
        """
        path = self._folder / name
        try:
            require_content(path)
            if file_digest(path) != digest:
                raise damaged(path, "its content has changed since it was written")
            if mapped and is_utf8(path):
                flag = self._faiss.IO_FLAG_MMAP_IFC
                return self._faiss.read_index(str(path), flag)
            with path.open("rb") as file:
                return self._faiss.read_index(self._faiss.PyCallbackIOReader(file.read))
        except OSError as error:
            raise damaged(path, error.strerror or str(error)) from error
        except RuntimeError as error:
            raise damaged(path, str(error)) from error


def _code_bytes(dim: int) -> int:
    """The largest divisor of D up to half of it."""
    return next(n for n in range(max(1, dim // 2), 0, -1) if dim % n == 0)
