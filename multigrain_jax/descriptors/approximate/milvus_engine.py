"""An approximate index in Milvus: a cluster by its address, or the embedded Lite.

Milvus has no transactions over requests: what a killed update leaves is cleared by the
next one, before the range of rows is written again.
"""

import contextlib
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from multigrain_jax.descriptors.approximate.engine import (
    NOTHING,
    Effort,
    Part,
    Rows,
    Stored,
    first_number,
)
from multigrain_jax.descriptors.approximate.record import (
    is_utf8,
    made_anew_by,
    not_installed,
)
from multigrain_jax.errors import InputError

KINDS = ("flat", "ivf_flat", "hnsw")
LITE = "lite"
LITE_FILE = "milvus.db"
TOKEN_VARIABLE = "MILVUS_TOKEN"
# "auto": the exact products of so many rows take milliseconds.
FLAT_ROWS = 50_000
# Numbers in one request that deletes.
_DELETED_AT_ONCE = 10_000
_QUERIES_AT_ONCE = 100
_ID, _VECTOR = "row", "descriptor"


class MilvusOptions(NamedTuple):
    """What an index is to be.

    Attributes:
        kind: one of `KINDS`, or "auto" by the number of rows.
        num_lists: of `ivf_flat`; None: 4 · √rows.
        num_links: of `hnsw`, per row and level (M).
        ef_construction: of `hnsw`, how thoroughly neighbours are looked for.
        uri: the address of a cluster, or "lite".
        collection: its name there.
        rows_per_insert: in one request.
    """

    kind: str
    num_lists: int | None
    num_links: int
    ef_construction: int
    uri: str
    collection: str
    rows_per_insert: int


class MilvusEngine:
    """The engine of a server; see `Engine`."""

    in_place = True
    can_remove = True

    def __init__(
        self, folder: Path, options: MilvusOptions, *, dim: int, made: dict[str, Any]
    ):
        """Connect; of Lite the server is a thread of this process.

        Args:
            folder: of the index.
            options: what it is to be.
            dim: D.
            made: what `create` returned; empty before that.

        Raises:
            InputError: pymilvus is not installed, or nothing answers.
        """
        self._folder, self._options, self._dim = folder, options, dim
        self._made = made
        self._file = folder / LITE_FILE if options.uri == LITE else None
        self._client: Any = None
        try:
            client_class = _client_class(lite=self._file is not None)
        except ImportError as error:
            raise not_installed(
                "milvus", str(error.name), folder=folder, made=made, instead="faiss"
            ) from error
        token = os.environ.get(TOKEN_VARIABLE, "")
        uri = options.uri if self._file is None else str(self._file)
        if self._file is not None and made and not self._file.is_dir():
            raise InputError(
                f"{self._file}: missing, the rows of the index were expected; make it "
                "anew with --config configs/index.py --config.rebuild=True"
            )
        if not is_utf8(Path(uri)):
            raise _not_in(folder, made)
        try:
            with _told(uri, lite=self._file is not None):
                self._client = _connect(client_class, uri, token)
                if made:
                    self._require_collection()
                    self._client.load_collection(options.collection)
        except BaseException:
            self.close()
            raise

    def create(self, sample: np.ndarray, *, num_rows: int) -> dict[str, Any]:
        """Make the collection anew; the server learns what it needs itself."""
        del sample
        from pymilvus import DataType

        options, client = self._options, self._client
        kind = options.kind
        if kind == "auto":
            kind = "flat" if num_rows <= FLAT_ROWS else "hnsw"
        made: dict[str, Any] = {"kind": kind}
        parameters: dict[str, int] = {}
        if kind == "hnsw":
            parameters = {
                "M": options.num_links,
                "efConstruction": options.ef_construction,
            }
        elif kind == "ivf_flat":
            made["num_lists"] = options.num_lists or max(1, int(4 * num_rows**0.5))
            parameters = {"nlist": made["num_lists"]}
        with _told(options.uri, lite=self._file is not None):
            if client.has_collection(options.collection):
                client.drop_collection(options.collection)
            schema = client.create_schema(auto_id=False)
            schema.add_field(_ID, DataType.INT64, is_primary=True)
            schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=self._dim)
            index = client.prepare_index_params()
            # The client takes the dictionary apart, and Lite looks for one.
            named = parameters if self._file is None else {"params": parameters}
            index.add_index(
                _VECTOR, index_type=kind.upper(), metric_type="IP", params=named
            )
            client.create_collection(
                options.collection,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
            )
            client.load_collection(options.collection)
        self._made = made
        return made

    def update(
        self, part: Part, *, remove: np.ndarray, add: Iterable[Rows], anew: bool
    ) -> Stored:
        """Delete and insert; what a killed update has inserted goes first."""
        options, client = self._options, self._client
        with _told(options.uri, lite=self._file is not None):
            if anew or not part.num_rows:
                first = first_number(part.first_shard)
                end = first_number(part.end_shard)
                wanted = f"{_ID} >= {first} && {_ID} < {end}"
                client.delete(options.collection, filter=wanted)
            else:
                for start in range(0, len(remove), _DELETED_AT_ONCE):
                    numbers = remove[start : start + _DELETED_AT_ONCE].tolist()
                    client.delete(options.collection, ids=numbers)
            for rows in _in_requests(add, options.rows_per_insert):
                client.insert(options.collection, rows)
            client.flush(options.collection)
        return Stored("", 0, "")

    def search(
        self, parts: Sequence[Part], queries: np.ndarray, *, k: int, effort: Effort
    ) -> np.ndarray:
        """The best of the collection, whatever its parts."""
        del parts
        numbers = np.full((len(queries), k), NOTHING, np.int64)
        parameters: dict[str, int] = {}
        if self._made["kind"] == "hnsw":
            parameters = {"ef": max(effort.ef_search, k)}
        elif self._made["kind"] == "ivf_flat":
            # The server refuses more than there are.
            parameters = {"nprobe": min(effort.num_probes, self._made["num_lists"])}
        with _told(self._options.uri, lite=self._file is not None):
            for first in range(0, len(queries), _QUERIES_AT_ONCE):
                found = self._client.search(
                    self._options.collection,
                    data=list(queries[first : first + _QUERIES_AT_ONCE]),
                    limit=k,
                    output_fields=[_ID],  # else Lite sends the descriptors, too
                    search_params={"metric_type": "IP", "params": parameters},
                )
                for number, hits in enumerate(found, start=first):
                    own = [hit[_ID] for hit in hits]
                    numbers[number, : len(own)] = own
        return numbers

    def size(self, parts: Sequence[Part]) -> tuple[int, int]:
        """What the server counts; bytes of the file of Lite, 0 of a cluster."""
        del parts
        with _told(self._options.uri, lite=self._file is not None):
            counted = self._client.query(
                self._options.collection, filter="", output_fields=["count(*)"]
            )
        num_bytes = 0
        if self._file is not None:
            files = [path for path in self._file.rglob("*") if path.is_file()]
            num_bytes = sum(path.stat().st_size for path in files)
        return int(counted[0]["count(*)"]), num_bytes

    def close(self) -> None:
        """Disconnect; the server of Lite ends, and others may open its file."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._file is not None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._file))

    def _require_collection(self) -> None:
        name = self._options.collection
        if self._client.has_collection(name):
            return
        raise InputError(
            f"milvus.collection: no {name!r} at {self._options.uri}, the rows of the "
            "index were expected; make it anew with --config configs/index.py "
            "--config.rebuild=True"
        )


def _not_in(folder: Path, made: Mapping[str, Any]) -> InputError:
    why = "bytes in its name that are no UTF-8, which Milvus Lite cannot open"
    if not made:
        return InputError(
            f"--workdir: {folder.parent} has {why}; choose another one, or "
            "--config.engine=faiss"
        )
    return InputError(
        f"{folder}: found {why}, expected none; rename the folder, or "
        f"{made_anew_by('faiss')}"
    )


def _connect(client_class: Any, uri: str, token: str) -> Any:
    try:
        return client_class(uri=uri, token=token)
    except ValueError as error:
        raise InputError(
            f"milvus.uri: found {uri} ({error}), expected an address such as "
            "http://localhost:19530; correct it"
        ) from error


def _in_requests(add: Iterable[Rows], count: int) -> Iterator[list[dict[str, Any]]]:
    for numbers, rows in add:
        for start in range(0, len(numbers), count):
            own = slice(start, start + count)
            yield [
                {_ID: number, _VECTOR: row}
                for number, row in zip(numbers[own].tolist(), rows[own], strict=True)
            ]


def _client_class(*, lite: bool) -> Any:
    """Pymilvus' client; it is imported late, and brings pandas and gRPC along.

    Raises:
        ImportError: it is not installed, or Lite is not.
    """
    from pymilvus import MilvusClient

    if lite:
        import milvus_lite  # noqa: F401 - pymilvus imports it only once it is used
    # They write whole tracebacks to the terminal, of what is raised as well and of
    # what Lite does not have and the client does without.
    for name in ("pymilvus", "milvus_lite", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MilvusClient


@contextlib.contextmanager
def _told(uri: str, *, lite: bool) -> Generator[None]:
    """Let an error of Milvus tell what to do.

    Raises:
        InputError: whatever Milvus raises, or what carries its calls.
    """
    from grpc import Call, RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        then = f"look at the server, at milvus.uri and at {TOKEN_VARIABLE}"
        if lite:
            then = (
                "end what else has it open: Lite is for one process at a time; if "
                "nothing has, make the index anew with --config.rebuild=True"
            )
        said, call = str(error), cast(object, error)
        if isinstance(call, Call):
            said = f"{call.code().name}: {call.details()}"
        raise InputError(
            f"{uri}: Milvus failed ({' '.join(said.split())}), an answer was expected; "
            f"{then}"
        ) from error
