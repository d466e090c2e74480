"""A server on loopback that serves one file as a test wants it served."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        assert isinstance(server, FileServer)
        server.requests.append(dict(self.headers))
        if server.held is not None:
            server.held.wait(60)
        if server.location is not None and self.path == "/moved":
            return self.answer(302, {"Location": server.location})
        if server.codes:
            return self.answer(server.codes.pop(0), {})
        data, start = server.data, self.first_byte(server)
        if start >= len(data) > 0:
            return self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Type": server.content_type}
        if server.says_length:
            headers["Content-Length"] = str(len(data) - start)
        if server.tag is not None:
            headers["ETag"] = server.tag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, headers)
        # Closing early is what a broken connection looks like.
        stop = start + server.cuts.pop(0) if server.cuts else len(data)
        self.wfile.write(data[start:stop])

    def first_byte(self, server):
        asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked is None or not server.ranges or condition not in (None, server.tag):
            return 0
        return int(asked[1])

    def answer(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format, *args):
        pass


class FileServer(ThreadingHTTPServer):
    """Serves `data` at every path.

    Attributes:
        requests: the headers of every request so far.
        cuts: for the next answers: how many bytes until the connection closes.
        codes: for the next answers: a status without a file.
        ranges: whether it takes up where a client left off.
        tag: its ETag.
        held: an event that answers wait for.
        location: where /moved redirects to.
    """

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.requests = []
        self.cuts, self.codes = [], []
        self.ranges, self.says_length = True, True
        self.tag = '"one"'
        self.content_type = "application/octet-stream"
        self.held = self.location = None

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def address(self):
        return f"{self.root}file.bin"

    @property
    def ranges_asked(self):
        return [headers.get("Range") for headers in self.requests]

    def handle_error(self, request, client_address):
        pass  # a client that has gone away


@pytest.fixture
def serve(monkeypatch):
    """bytes -> a running server of them."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = []

    def start(data):
        server = FileServer(data)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        if server.held is not None:
            server.held.set()
        server.shutdown()
        thread.join()
        server.server_close()
