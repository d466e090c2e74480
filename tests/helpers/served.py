"""A server of `browse` in a thread, and a plain client that says what it likes."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from multigrain_jax.browse.app import make_app
from multigrain_jax.browse.review import Review
from multigrain_jax.browse.server import listen, make_server
from multigrain_jax.browse.services import Services

BOUNDARY = "a-boundary"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to a server of this machine.

    Attributes:
        services: what the server answers from.
        port: where it listens.
    """

    def __init__(self, services: Services, port: int):
        self.services = services
        self.port = port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            found = connection.getresponse()
            named = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, named, found.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Bytes as they are, and anything else as JSON."""
        if isinstance(body, bytes):
            return self.ask("POST", path, body, headers)
        sent = {"content-type": "application/json", **(headers or {})}
        return self.ask("POST", path, json.dumps(body).encode(), sent)

    def post_form(self, path: str, data: bytes, name: str = "file") -> Answer:
        """A file as the part of a form."""
        head = (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name={name}; "
            'filename="a.png"\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", path, body, {"content-type": kind})


@contextlib.contextmanager
def serving(
    services: Services, review: Review, *, token: str | None = None
) -> Iterator[Client]:
    """A server while the context lasts."""
    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        app = make_app(services, review, host="127.0.0.1", port=port, token=token)
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(services, port)
        finally:
            server.should_exit = True
            thread.join()
