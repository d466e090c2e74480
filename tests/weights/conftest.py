"""A server on loopback that serves one file as a test wants it served."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.state_dict import export_state_dict
from multigrain_jax.models.multigrain import variables_of
from multigrain_jax.weights.table import CC_BY_NC, PUBLISHED, PublishedWeights


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


@pytest.fixture(scope="session")
def weight_file(tiny_checkpoint):
    """A published weight file: of the tiny network, in the original's keys."""
    numpy = pytest.importorskip("safetensors.numpy")
    variables = variables_of(load_checkpoint(tiny_checkpoint).model)
    return numpy.save(export_state_dict(variables, backbone="tiny"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder where weights are kept."""
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def publish(serve, cache, monkeypatch, weight_file):
    """Gives the tiny weights a name, and serves them; other columns as wanted."""

    def publish(name, data=weight_file, **columns):
        server = serve(data)
        row = PublishedWeights(
            address=f"{server.root}tiny-file.safetensors",
            backbone="tiny",
            licence=CC_BY_NC,
            results={"ImageNet top-1, 224 square": 12.5},
            test_size=96,
            test_mode="rect",
            **columns,
        )
        monkeypatch.setitem(PUBLISHED, name, row)
        return server

    return publish
