"""One connection to the emulator of Google Cloud Storage, with what that lacks.

It keeps no preconditions, has listings in one piece, and takes a line break off some
contents; and it never fails.
"""

import io
import json
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000  # objects in one answer to a listing, at most
# How requests fail: an answer, none, none although it was done, half of one, a wait.
BUSY, DROPPED, LOST, CUT, HANGING = "busy", "dropped", "lost", "cut", "hanging"
STATUS = {BUSY: 503}


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


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    emulator: Any  # the Gcs of helpers.buckets

    def handle_error(self, request, client_address) -> None:
        # A client that has gone, which tests do on purpose, is no fault of anybody.
        if not isinstance(sys.exception(), ConnectionError):
            self.emulator.errors.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    """One connection: what the emulator does not do, and then the emulator."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for an answer
    emulator: Any  # the Gcs of helpers.buckets

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

        promised = int(self.headers.get("Content-Length", 0))
        body, wire = _read_raw_data(self) or b"", (self.rfile, self.wfile)
        if len(body) < promised:
            # The client was killed in the middle of its request: as if never sent.
            self.close_connection = True
            return
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
