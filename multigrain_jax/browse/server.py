"""A socket, an address that is printed, and a server until it is told to stop."""

import contextlib
import signal
import socket
import threading
import webbrowser

import uvicorn
from starlette.types import ASGIApp

from multigrain_jax.errors import InputError

BACKLOG = 128
# Answers under way when the server is told to stop.
STOP_TIMEOUT_S = 10


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or an address of this machine.
        port: 0 is a free one.

    Raises:
        InputError: no such host, or a port that is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _refused(host, port, error) from error
    return opened


def _refused(host: str, port: int, error: OSError) -> InputError:
    return InputError(
        f"host, port: listening on {host}, port {port} failed ({error.strerror}), "
        "expected an address of this machine and a free port; port 0 finds one"
    )


def address_of(host: str, opened: socket.socket) -> str:
    """What a browser is given: `http://HOST:PORT`."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}"


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application; `should_exit` ends it."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            backlog=BACKLOG,
            # Addresses in headers would be believed, and none is asked for.
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )


def serve(app: ASGIApp, opened: socket.socket) -> None:
    """Serve from a socket until SIGINT (Ctrl-C) or SIGTERM; both end it alike.

    Args:
        app: the application.
        opened: a socket that listens.
    """
    # The server sends itself the signal again once it has ended: what SIGTERM does by
    # itself would leave processes and locks to the system.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            make_server(app).run(sockets=[opened])
    finally:
        signal.signal(signal.SIGTERM, before)


def open_in_browser(address: str) -> None:
    """Show an address in the user's browser, if there is one, without waiting."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
