"""Bodies that come in parts, and what they may be."""

import asyncio

import pytest
from starlette.requests import Request

from multigrain_jax.browse import uploads
from multigrain_jax.browse.gate import Gate, GateFullError
from multigrain_jax.browse.uploads import (
    UploadRefusedError,
    drain,
    read_body,
    read_json,
)


def request(parts, headers=()):
    messages = [
        {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]

    async def receive():
        return messages.pop(0)

    sent = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": sent}
    return Request(scope, receive)


def test_parts_are_joined():
    assert asyncio.run(read_body(request([b"ab", b"", b"c"]), max_bytes=3)) == b"abc"


@pytest.mark.parametrize("said", ["3", "999999999999", "x"])
def test_too_much_is_refused_whatever_was_announced(said):
    sent = request([b"ab", b"cd"], [("content-length", said)])
    with pytest.raises(UploadRefusedError) as refused:
        asyncio.run(read_body(sent, max_bytes=3))
    assert refused.value.status == 413


def test_much_too_much_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_DRAINED_BYTES", 3)
    sent = request([b"abcd", b"efg", b"never"])
    with pytest.raises(UploadRefusedError):
        asyncio.run(read_body(sent, max_bytes=3))
    assert asyncio.run(sent.receive())["body"] == b"never"


def test_what_all_requests_hold_is_bounded():
    gate = Gate(max_requests=2, max_bytes=3)
    with pytest.raises(GateFullError), gate.enter() as place:
        asyncio.run(read_body(request([b"ab", b"cd"]), max_bytes=9, place=place))
    with gate.enter() as place:
        asyncio.run(read_body(request([b"abc"]), max_bytes=9, place=place))
        assert place.held == 3


def test_what_nobody_wants_is_read_for_a_while(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 3)
    monkeypatch.setattr(uploads, "DRAIN_TIMEOUT_S", 0.05)
    sent = request([b"abcd", b"never"])
    asyncio.run(drain(sent))
    assert asyncio.run(sent.receive())["body"] == b"never"

    async def wait_for_ever():
        await asyncio.sleep(60)

    asyncio.run(drain(Request({"type": "http", "headers": []}, wait_for_ever)))


@pytest.mark.parametrize("body", [b"", b"[1]", b"nul", b"\xff", b"[" * 100_000])
def test_other_than_a_json_object_is_refused(body):
    with pytest.raises(UploadRefusedError) as refused:
        asyncio.run(read_json(request([body])))
    assert refused.value.status == 400
