"""Who is answered: requests to this server's own name, of its own page or of no page.

A page of another site can send requests to a server on the visitor's machine, directly
or by a name of its own that it lets point there (DNS rebinding). Both are refused.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing runs or is loaded but the files of this server; photos that were dropped are
# shown from memory ("blob:").
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# What needs no token: it holds nothing of the collection.
OPEN_PATHS = ("/", "/docs", "/health", "/openapi.json")
OPEN_FOLDER = "/static/"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HostNames:
    """The names by which a server may be asked."""

    def __init__(self, host: str):
        """Take what the server listens on.

        Args:
            host: a name or an address of this machine.
        """
        self._names = {host.lower(), *LOOPBACK_NAMES}
        self._any_address = not is_loopback(host)
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    def has(self, name: str) -> bool:
        """Whether a name is among them; of a server for others any address is."""
        if name.lower() in self._names:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """Answers in the place of the application where a request is not to reach it.

    Attributes:
        session: what a browser is given as a cookie in exchange for the token.
        cookie: the cookie's name.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, token: str | None):
        """Stand before an application.

        Args:
            app: the application.
            host: what the server listens on.
            port: where; cookies are not kept apart by it.
            token: what clients must send; None: nothing.
        """
        self._app = app
        self._names = HostNames(host)
        self._token = None if token is None else token.encode()
        self.session = secrets.token_urlsafe(32)
        self.cookie = f"multigrain_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            scope.setdefault("state", {})["guard"] = self
            await self._app(scope, receive, send_guarded)
        else:
            await refusal(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._names.has(name):
            return refused(
                403,
                f"Host: found {', '.join(hosts) or 'none'}, expected the address that "
                "the server printed when it started",
            )
        if any(urlsplit_netloc(origin) != hosts[0].lower() for origin in origins):
            return refused(403, "Origin: a request of another site's page")
        is_page = scope["method"] == "GET" and scope["path"] in OPEN_PATHS
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (
            is_page and headers.get("sec-fetch-mode") == "navigate"
        ):
            return refused(403, "Sec-Fetch-Site: a request of another site's page")
        if self._is_open(scope["path"]) or self._has_token(headers):
            return None
        answer = refused(
            401, "a token is needed: send it as `Authorization: Bearer TOKEN`"
        )
        answer.headers["www-authenticate"] = "Bearer"
        return answer

    def _is_open(self, path: str) -> bool:
        return self._token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDER)

    def _has_token(self, headers: Headers) -> bool:
        assert self._token is not None
        kind, _, sent = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return hmac.compare_digest(sent.strip().encode("latin-1"), self._token)
        return any(
            hmac.compare_digest(value.encode("latin-1"), self.session.encode())
            for value in cookie_values(headers.getlist("cookie"), self.cookie)
        )


def refused(status: int, reason: str) -> JSONResponse:
    """An answer that says why there is no other."""
    # It may quote what was sent, of which UTF-8 has not all.
    words = reason.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"error": words}, status_code=status)


def host_name(header: str) -> str | None:
    """The name or address in a Host header, without brackets; None: it is broken."""
    try:
        found = urlsplit(f"//{header}")
        found.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    is_plain = found.netloc == header and not found.username and not found.password
    return found.hostname if is_plain else None


def urlsplit_netloc(origin: str) -> str:
    """The name and port of an Origin header; "" of one that is not HTTP's."""
    try:
        found = urlsplit(origin.lower())
    except ValueError:
        return ""
    return found.netloc if found.scheme in ("http", "https") else ""


def cookie_values(headers: Iterable[str], name: str) -> Sequence[str]:
    """What a cookie is, as a request's headers have it."""
    values = []
    for header in headers:
        try:
            cookies = SimpleCookie(header)
        except CookieError:
            continue
        if name in cookies:
            values.append(cookies[name].value)
    return values
