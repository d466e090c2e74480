"""What clients send: its length and its time bounded before any of it is looked at."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from multigrain_jax.browse.gate import Place

MAX_UPLOAD_BYTES = 50 << 20
MAX_JSON_BYTES = 1 << 20
# So much more is read, and thrown away, for a client to hear that it was too much.
MAX_DRAINED_BYTES = 256 << 20
UPLOAD_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 5.0
# Names of parts and boundaries around a file.
FORM_BYTES = 16 << 10


class UploadRefusedError(ValueError):
    """A request that cannot be answered.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


async def read_body(
    request: Request,
    *,
    max_bytes: int,
    place: Place | None = None,
) -> bytes:
    """The body of a request.

    Args:
        request: the request.
        max_bytes: a longer one is refused, as soon as that is known.
        place: counts what is held of it.

    Raises:
        UploadRefusedError: too long, or not here in time.
        GateFullError: all requests together hold too much.
    """
    too_long = UploadRefusedError(
        413,
        f"more than {max_bytes >> 20 or max_bytes} "
        f"{'MiB' if max_bytes >> 20 else 'bytes'}, the limit of what is taken",
    )
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > max_bytes + MAX_DRAINED_BYTES:
        raise too_long
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            async for part in request.stream():
                length += len(part)
                if length > max_bytes + MAX_DRAINED_BYTES:
                    raise too_long
                if length > max_bytes:
                    # Most clients listen for an answer once they have sent all.
                    parts.clear()
                    continue
                if place is not None:
                    place.hold(len(part))
                parts.append(part)
    except TimeoutError as error:
        raise UploadRefusedError(
            408, f"not all of it came within {UPLOAD_TIMEOUT_S:g} seconds"
        ) from error
    if length > max_bytes:
        raise too_long
    return b"".join(parts)


async def drain(request: Request) -> None:
    """Read what nobody wants, for a while: most clients listen once they have sent it.

    Args:
        request: of which nothing was read yet.
    """
    length = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for part in request.stream():
                length += len(part)
                if length > MAX_UPLOAD_BYTES:
                    return


async def read_photo(request: Request, *, place: Place) -> bytes:
    """The photo of a request: its body, or the part `file` of a form.

    Raises:
        UploadRefusedError: there is none, or it is too large.
    """
    form = content_type(request) == "multipart/form-data"
    most = MAX_UPLOAD_BYTES + (FORM_BYTES if form else 0)
    body = await read_body(request, max_bytes=most, place=place)
    if form:
        body = await _file_of_form(request, body)
    if not body:
        raise UploadRefusedError(
            400,
            "nothing was sent: expected the bytes of a photo, as the body or as "
            "the part `file` of a form",
        )
    if len(body) > MAX_UPLOAD_BYTES:
        raise UploadRefusedError(413, f"more than {MAX_UPLOAD_BYTES >> 20} MiB")
    return body


async def read_json(request: Request) -> dict[str, Any]:
    """A request's body as a JSON object.

    Raises:
        UploadRefusedError: it is none.
    """
    body = await read_body(request, max_bytes=MAX_JSON_BYTES)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UploadRefusedError(400, f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UploadRefusedError(400, "found other JSON, expected an object")
    return value


def content_type(request: Request) -> str:
    """The type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes]:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise UploadRefusedError(400, f"a broken form: {reason}") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise UploadRefusedError(400, "the form has no part `file` with a file")
        return await file.read()
    finally:
        await form.close()
