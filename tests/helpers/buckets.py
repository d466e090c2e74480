"""Buckets for tests: `gs://` and `s3://` on loopback, in memory, with faults to order.

`gcs` and `s3` are fixtures (tests/conftest.py knows them): a new bucket for each test,
on a server that is started when the first test asks for it.
"""

import io
import itertools
import json
import logging
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

PAGE = 1000  # objects in one answer to a listing, at most
# How requests fail: an answer, none, none although it was done, half of one, a wait.
BUSY, DROPPED, LOST, CUT, HANGING = "busy", "dropped", "lost", "cut", "hanging"
STATUS = {BUSY: 503}
# What the libraries look for before they believe that nobody has to be asked.
ANONYMOUS = {
    "NO_GCE_CHECK": "true",
    "GCSFS_DEFAULT_PROJECT": "test",
    # gcsfs would ask by another protocol what kind of bucket it is, for a minute each.
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "FSSPEC_GS_TOKEN": "anon",
    "FSSPEC_GCS_TOKEN": "anon",
    "GOOGLE_CLOUD_PROJECT": "test",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Faults:
    """Which of the requests to come fail, and how."""

    def __init__(self):
        self._lock = threading.Lock()
        self.released = threading.Event()
        self.clear()

    def clear(self) -> None:
        """From now on nothing fails, and what hangs goes on."""
        with self._lock:
            self._how, self._left, self._every, self._seen = BUSY, 0, 0, 0
            self._kinds: Sequence[str] = ()
            self.released.set()

    def order(
        self, how: str, *, next_n: int = 0, every: int = 0, kinds: Sequence[str] = ()
    ) -> None:
        """Let the next n requests fail, or every k-th one.

        Args:
            how: `BUSY`, or another of these constants.
            next_n: so many from now on.
            every: each k-th from now on.
            kinds: only such requests count, as `requests` names them; (): all.
        """
        with self._lock:
            self._how, self._left, self._every, self._seen = how, next_n, every, 0
            self._kinds = tuple(kinds)
            self.released.clear()

    def of(self, kind: str) -> str | None:
        """How this request fails; None: it does not."""
        with self._lock:
            if self._kinds and kind not in self._kinds:
                return None
            self._seen += 1
            if self._left:
                self._left -= 1
                return self._how
            fails = self._every and self._seen % self._every == 0
            return self._how if fails else None


class Gcs:
    """The emulator of Google Cloud Storage behind what it lacks.

    Generation preconditions are kept, listings come in pages, and requests fail as
    `faults` says.

    Attributes:
        bucket: the bucket of this test.
        faults: what is to go wrong.
        requests: how many there were of each kind: "list", "read", "stat", "write",
            "delete", "copy", "bucket".
        errors: what went wrong in the emulator itself.
    """

    scheme = "gs"

    def __init__(self):
        from gcp_storage_emulator.storage import Storage

        self.faults, self.requests = Faults(), Counter()
        self.errors: list[str] = []
        self.lock = threading.RLock()
        self.storage = Storage(use_memory_fs=True)
        # It would write down everything there is at every write.
        self.storage._write_config_to_file = lambda: None
        handler = type("Handler", (_Handler,), {"emulator": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.emulator = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        self._numbers = itertools.count()
        self.bucket = ""

    @property
    def environment(self) -> dict[str, str]:
        """What processes must be told."""
        return {
            **ANONYMOUS,
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
        }

    def renew(self) -> None:
        """A new, empty bucket; nothing fails, nothing is counted yet."""
        from gcp_storage_emulator.handlers.buckets import create_bucket

        with self.lock:
            self.faults.clear()
            self.storage.objects.clear()
            self.bucket = f"bucket{next(self._numbers)}"
            create_bucket(self.bucket, self.storage)
            self.requests.clear()

    def close(self) -> None:
        """End the server."""
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str = "") -> str:
        """The URL of an object, or of the bucket."""
        return f"gs://{self.bucket}/{name}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, past the server."""
        self.write(self.bucket, name, data, {})

    def write(self, bucket: str, name: str, data: bytes, given: dict) -> dict:
        """Write an object with what is told of it; what there is to tell then."""
        from gcp_storage_emulator.handlers import objects

        with self.lock:
            row = objects._make_object_resource(
                self.address,
                bucket,
                name,
                "application/octet-stream",
                str(len(data)),
                given,
            )
            objects._checksums(data, row)
            self.storage.create_file(bucket, name, data, row)
        return row

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        """Write every file of a folder, past the server."""
        put_folder(self, folder, prefix)

    def data(self, name: str) -> bytes:
        """What an object holds; an exception of the emulator's where there is none."""
        with self.lock:
            return self.storage.get_file(self.bucket, name)

    def generation(self, name: str) -> int:
        """Which writing of an object is there now; 0: none."""
        with self.lock:
            row = self.storage.objects.get(self.bucket, {}).get(name)
        return 0 if row is None else int(row["generation"])

    def delete(self, name: str) -> None:
        """Remove an object, past the server."""
        with self.lock:
            self.storage.delete_file(self.bucket, name)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all objects, sorted."""
        with self.lock:
            found = self.storage.objects.get(self.bucket, {})
            return sorted(name for name in found if name.startswith(prefix))


def put_folder(bucket: "Gcs | S3", folder: Path, prefix: str = "") -> None:
    """Write every file of a folder as an object of the same name below `prefix`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            bucket.put(f"{prefix}/{name}".lstrip("/"), path.read_bytes())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    emulator: Gcs

    def handle_error(self, request, client_address) -> None:
        # A client that has gone, which tests do on purpose, is no fault of anybody.
        import sys
        import traceback

        if not isinstance(sys.exception(), ConnectionError):
            self.emulator.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    """One connection: what the emulator does not do, and then the emulator."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for an answer
    emulator: Gcs

    @property
    def storage(self):
        return self.emulator.storage

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def _answer(self, method: str) -> None:
        from gcp_storage_emulator.server import _read_raw_data

        body, wire = _read_raw_data(self) or b"", (self.rfile, self.wfile)
        del self.headers["Transfer-Encoding"]
        del self.headers["Content-Length"]
        self.headers["Content-Length"] = str(len(body))
        kind = _kind(method, self.path)
        self.emulator.requests[kind] += 1
        fault = self.emulator.faults.of(kind)
        answer = io.BytesIO()
        if fault == HANGING:
            self.emulator.faults.released.wait()
        if fault in STATUS:
            body_only = {"error": {"code": STATUS[fault], "message": "made for a test"}}
            self._send(STATUS[fault], body_only)
        elif fault not in (DROPPED, HANGING):
            self.rfile, self.wfile = io.BytesIO(body), answer
            try:
                with self.emulator.lock:
                    self._route(method, kind, body)
            finally:
                self.rfile, self.wfile = wire
        data = b"" if fault == LOST else answer.getvalue()
        self.wfile.write(data[: len(data) // 2] if fault == CUT else data)
        self.wfile.flush()
        if fault not in (None, *STATUS):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _route(self, method: str, kind: str, body: bytes) -> None:
        from gcp_storage_emulator.server import Router

        refused = self._precondition(kind, body)
        if refused:
            reason = {"code": refused, "message": "the precondition does not hold"}
            self._send(refused, {"error": reason})
        elif kind == "list":
            self._list()
        elif _query(self.path).get("uploadType") == "multipart":
            self._write(body)
        else:
            Router(self).handle(method)

    def _precondition(self, kind: str, body: bytes) -> int | None:
        """The status that refuses the request; None: it may go on."""
        query = _query(self.path)
        bucket, name = _object(self.path, query)
        if "upload_id" in query:
            name = self.storage.resumable.get(query["upload_id"], {}).get("name", "")
        elif query.get("uploadType") == "multipart":
            name = _parts(body)[0].get("name", name)
        elif query.get("uploadType") == "resumable" and body:
            name = json.loads(body).get("name", name)
        if not name or kind == "list":
            return None
        row = self.storage.objects.get(bucket, {}).get(name)
        generation = "0" if row is None else row["generation"]
        if query.get("generation", generation) != generation and kind != "copy":
            return 404
        if query.get("ifGenerationMatch", generation) != generation:
            return 412
        return 412 if query.get("ifGenerationNotMatch") == generation else None

    def _write(self, body: bytes) -> None:
        """Write an object; the emulator would take a line break off some contents."""
        bucket, name = _object(self.path, _query(self.path))
        given, data = _parts(body)
        if bucket not in self.storage.buckets:
            self._send(404, {"error": {"code": 404, "message": "no such bucket"}})
            return
        row = self.emulator.write(bucket, given.get("name", name), data, given)
        self._send(200, row)

    def _list(self) -> None:
        from gcp_storage_emulator.exceptions import NotFound

        query = _query(self.path)
        bucket, _ = _object(self.path, query)
        try:
            rows, prefixes = self.storage.get_file_list(
                bucket, query.get("prefix"), query.get("delimiter")
            )
        except NotFound:
            reason = {"code": 404, "message": "The specified bucket does not exist."}
            self._send(404, {"error": reason})
            return
        entries = [(row["name"], row) for row in rows]
        entries += [(prefix, None) for prefix in prefixes]
        entries.sort(key=lambda entry: entry[0].encode())
        begin, end = query.get("startOffset", ""), query.get("endOffset")
        entries = [
            entry
            for entry in entries
            if entry[0] >= begin and (end is None or entry[0] < end)
        ]
        first = int(query.get("pageToken", 0))
        last = first + min(PAGE, int(query.get("maxResults", PAGE)))
        answer = {
            "kind": "storage#objects",
            "items": [row for _, row in entries[first:last] if row is not None],
            "prefixes": [name for name, row in entries[first:last] if row is None],
        }
        if last < len(entries):
            answer["nextPageToken"] = str(last)
        self._send(200, answer)

    def _send(self, status: int, content: Mapping[str, object]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _query(path: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}


def _object(path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """The bucket and the object that a request is about; "" where there is none."""
    _, found, rest = urlsplit(path).path.partition("/b/")
    if not found:
        parts = urlsplit(path).path.lstrip("/").split("/", 1)
        return parts[0], unquote(parts[1]) if len(parts) > 1 else ""
    bucket, _, rest = rest.partition("/o")
    name = unquote(rest.removeprefix("/").split("/rewriteTo/")[0].split("/copyTo/")[0])
    return bucket, name or query.get("name", "")


def _parts(body: bytes) -> tuple[dict, bytes]:
    """What is told of an object in an upload of both, and what it holds."""
    mark = body[: body.index(b"\n")]
    newline = b"\r\n" if mark.endswith(b"\r") else b"\n"
    mark = newline + mark.rstrip(b"\r")
    about, rest = body.split(newline * 2, 1)[1].split(mark + newline, 1)
    return json.loads(about), rest.split(newline * 2, 1)[1].rpartition(mark + b"--")[0]


def _kind(method: str, path: str) -> str:
    address, query = urlsplit(path).path, _query(path)
    if "/rewriteTo/" in address or "/copyTo/" in address:
        return "copy"
    if "uploadType" in query or "upload_id" in query:
        return "write"
    if address.endswith("/o"):
        return "list"
    if method == "DELETE":
        return "delete"
    if "/o/" not in address and "/b/" in address:
        return "bucket"
    if method != "GET":
        return "write"
    is_read = query.get("alt") == "media" or "/b/" not in address
    return "read" if is_read or address.startswith("/download/") else "stat"


class S3:
    """Moto's server of S3.

    Attributes:
        bucket: the bucket of this test.
    """

    scheme = "s3"

    def __init__(self):
        from moto.server import ThreadedMotoServer

        # It tells of each request.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.address = "http://{}:{}".format(*self._server.get_host_and_port())
        self._numbers = itertools.count()
        self.bucket = ""

    @property
    def environment(self) -> dict[str, str]:
        """What processes must be told."""
        return {**ANONYMOUS, "AWS_ENDPOINT_URL": self.address}

    def renew(self) -> None:
        """A new, empty bucket."""
        self.bucket = f"bucket{next(self._numbers)}"
        self._ask("PUT", "")

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def url(self, name: str = "") -> str:
        """The URL of an object, or of the bucket."""
        return f"s3://{self.bucket}/{name}".rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self._ask("PUT", name, data)

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        """Write every file of a folder."""
        put_folder(self, folder, prefix)

    def data(self, name: str) -> bytes:
        """What an object holds."""
        from moto.s3.models import s3_backends

        (backend,) = (
            b for b in s3_backends.values() if self.bucket in b["aws"].buckets
        )
        return backend["aws"].buckets[self.bucket].keys[name].value

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._ask("DELETE", name)

    def _ask(self, method: str, name: str, data: bytes | None = None) -> bytes:
        url = f"{self.address}/{self.bucket}/{quote(name)}"
        request = urllib.request.Request(url, data=data, method=method)
        # Without one of its own it would be taken for that of a form.
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request) as answer:
            return answer.read()


@contextmanager
def told(bucket: Gcs | S3) -> Generator[None]:
    """Within it this process and those that it starts find the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        _tell_fsspec()
        yield


def _tell_fsspec() -> None:
    """It reads the environment as it is imported, and may have been."""
    from fsspec import config

    config.set_conf_env(config.conf, os.environ)


@pytest.fixture(scope="session")
def gcs_server() -> Generator[Gcs]:
    """One server for all tests of a process; `gcs` is a bucket of it."""
    server = Gcs()
    with told(server):
        import gcsfs  # noqa: F401 - it reads the environment once
    yield server
    server.close()


@pytest.fixture
def gcs(gcs_server: Gcs) -> Generator[Gcs]:
    """An empty bucket of `gs://`, which this process and its children find."""
    gcs_server.renew()
    with told(gcs_server):
        yield gcs_server
    gcs_server.faults.clear()
    errors, gcs_server.errors = gcs_server.errors, []
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="session")
def s3_server() -> Generator[S3]:
    """One server for all tests of a process; `s3` is a bucket of it."""
    server = S3()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3) -> Generator[S3]:
    """An empty bucket of `s3://`, which this process and its children find."""
    s3_server.renew()
    with told(s3_server):
        yield s3_server
