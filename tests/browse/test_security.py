"""Who is answered."""

import asyncio

import pytest

from multigrain_jax.browse.security import (
    Guard,
    HostNames,
    cookie_values,
    host_name,
    is_loopback,
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine_alone(host, expected):
    assert is_loopback(host) == expected


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:80", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:5", "::1"),
        ("a@localhost", None),
        ("localhost:x", None),
        ("localhost/evil", None),
        ("localhost, evil", "localhost, evil"),
        ("[::1", None),
        ("", None),
    ],
)
def test_the_name_in_a_host_header(header, name):
    assert host_name(header) == name


def test_names_of_a_server():
    own = HostNames("127.0.0.1")
    assert all(own.has(name) for name in ("localhost", "LOCALHOST", "127.0.0.1", "::1"))
    assert not any(own.has(n) for n in ("evil.example", "192.168.1.5", "127.0.0.1.x"))
    for_all = HostNames("0.0.0.0")
    assert for_all.has("192.168.1.5") and not for_all.has("evil.example")
    assert HostNames("photos.lan").has("photos.lan")


def ask(guard, method, path, headers):
    """The status, and whether the application was reached."""
    sent, reached = [], []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in headers],
    }
    guard._app.reached = reached
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], bool(reached)


class App:
    async def __call__(self, scope, receive, send):
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def make(token=None):
    return Guard(App(), host="127.0.0.1", port=5, token=token)


OWN = ("host", "127.0.0.1:5")
ALLOWED = [
    ("GET", "/", []),
    ("POST", "/api/search", [("origin", "http://127.0.0.1:5")]),
    ("POST", "/api/search", [("sec-fetch-site", "same-origin")]),
    ("GET", "/", [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
    ("GET", "/api/photo/1", [("sec-fetch-site", "none")]),
]
REFUSED = [
    ("POST", "/api/search", [("origin", "http://evil.example")]),
    ("POST", "/api/search", [("origin", "http://127.0.0.1:6")]),
    ("POST", "/api/search", [("origin", "null")]),
    ("POST", "/api/search", [("origin", "file://127.0.0.1:5")]),
    ("POST", "/api/search", [("origin", "http://[")]),
    ("POST", "/api/search", [OWN]),  # two hosts
    ("GET", "/api/photo/1", [("sec-fetch-site", "cross-site")]),
    ("GET", "/api/photo/1", [("sec-fetch-site", "same-site")]),
    (
        "GET",
        "/api/photo/1",
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
    ),
]


@pytest.mark.parametrize(("method", "path", "headers"), ALLOWED)
def test_requests_of_the_own_page_are_answered(method, path, headers):
    assert ask(make(), method, path, [OWN, *headers]) == (200, True)


@pytest.mark.parametrize(("method", "path", "headers"), REFUSED)
def test_requests_of_others_are_refused(method, path, headers):
    assert ask(make(), method, path, [OWN, *headers]) == (403, False)


@pytest.mark.parametrize("host", [[], ["evil.example:5"], ["127.0.0.1.evil.example"]])
def test_other_names_are_refused(host):
    headers = [("host", name) for name in host]
    assert ask(make(), "GET", "/", headers) == (403, False)


def test_a_token_is_compared_whole():
    guard = make("abc")
    for sent in ("Bearer abc", "bearer abc", "BEARER  abc "):
        assert ask(guard, "GET", "/api/info", [OWN, ("authorization", sent)])[1]
    for sent in (
        "Bearer abcd",
        "Bearer ab",
        "Bearer",
        "abc",
        "Basic abc",
        "Bearer äbc",
    ):
        found = ask(guard, "GET", "/api/info", [OWN, ("authorization", sent)])
        assert found == (401, False)
    cookie = f"other=1; {guard.cookie}={guard.session}"
    assert ask(guard, "GET", "/api/info", [OWN, ("cookie", cookie)])[1]
    assert not ask(guard, "GET", "/api/info", [OWN, ("cookie", f"{cookie}x")])[1]
    # A cookie alone does not let another site's page in.
    headers = [OWN, ("cookie", cookie), ("origin", "http://evil.example")]
    assert ask(guard, "POST", "/api/marks", headers) == (403, False)


def test_broken_cookies_are_passed_over():
    assert cookie_values(["a=1; b=2"], "b") == ["2"]
    assert cookie_values(["\x00=;;;", "[]=1"], "b") == []
