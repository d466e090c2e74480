"""The HTTP API: photos in, descriptors and neighbours out; photos of the collection."""

import asyncio
import contextlib
import re
import time
from html import escape
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from multigrain_jax.browse.embedder import Embedding
from multigrain_jax.browse.gate import GateFullError
from multigrain_jax.browse.neighbours import Neighbour
from multigrain_jax.browse.photo_files import PhotoGoneError, PhotoRefusedError
from multigrain_jax.browse.services import Services
from multigrain_jax.browse.uploads import (
    UploadRefusedError,
    content_type,
    drain,
    read_json,
    read_photo,
)
from multigrain_jax.data.image_file import UndecodableImageError
from multigrain_jax.files import escape_name, unescape_name

MAX_NEIGHBOURS = 1000
DEFAULT_NEIGHBOURS = 10
MAX_ROWS = 2000
LIKELY_CLASSES = 5
FLOAT32_MAX = float(np.finfo(np.float32).max)
# How files begin that browsers show themselves -> their media type.
SHOWN_BY_BROWSERS = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftypavif", re.DOTALL), "image/avif"),
)
# Of others, which are shown as JPEG files.
PICTURE_SIDE = 4096
# Fewer than there are threads: a search does not wait for what is scrolled by.
THUMBNAILS_AT_ONCE = 4


class Api:
    """The routes of the API."""

    def __init__(self, services: Services):
        """Answer from these."""
        self._services = services
        self._shown_small = asyncio.Semaphore(THUMBNAILS_AT_ONCE)

    def routes(self) -> list[Route]:
        """What is asked for, and what answers."""
        return [
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/search", self.search, methods=["POST"]),
            Route("/api/photo/{row:int}", self.photo),
            Route("/api/thumbnail/{row:int}", self.thumbnail),
            Route("/api/info", self.info),
            Route("/api/collection", self.rows),
            Route("/api/session", self.session, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]

    async def embed(self, request: Request) -> Response:
        """The descriptor, the logits and the likeliest classes of a photo."""
        found = await self._embedding(request)
        classes = self._services.likely_classes(found.logits, count=LIKELY_CLASSES)
        return JSONResponse(
            {
                "descriptor": found.descriptor.tolist(),
                "logits": None if found.logits is None else found.logits.tolist(),
                "classes": [
                    {"name": escape_name(name), "probability": probability}
                    for name, probability in classes
                ],
            }
        )

    async def search(self, request: Request) -> Response:
        """The photos most similar to a photo, a descriptor, or to one of them."""
        services = self._services
        count = integer(
            request, "num_neighbours", DEFAULT_NEIGHBOURS, 1, MAX_NEIGHBOURS
        )
        within = services.collection.within(*part_of(request))
        without = None
        if content_type(request) == "application/json":
            descriptor, without = self._query(await read_json(request))
        else:
            descriptor = (await self._embedding(request)).descriptor
        started = time.perf_counter()
        found = await asyncio.to_thread(
            services.search.find, descriptor, count, within=within, without=without
        )
        seconds = time.perf_counter() - started
        services.meters.observe("search_seconds", seconds)
        return JSONResponse(
            {
                "neighbours": [self._neighbour(each) for each in found],
                "num_photos": int(within.sum()),
                "search_seconds": seconds,
            }
        )

    async def photo(self, request: Request) -> Response:
        """A photo as a browser can show it."""
        row = request.path_params["row"]
        try:
            data = await asyncio.to_thread(self._services.files.read, row)
            for beginning, media_type in SHOWN_BY_BROWSERS:
                if beginning.match(data):
                    return Response(data, media_type=media_type)
            job = self._services.picture_job(data, side=PICTURE_SIDE)
            picture = await asyncio.wrap_future(self._services.decoders.submit(job))
            return Response(picture, media_type="image/jpeg")
        except (PhotoGoneError, PhotoRefusedError, UndecodableImageError) as error:
            return tile(error)

    async def thumbnail(self, request: Request) -> Response:
        """A small JPEG file of a photo."""
        row, thumbnails = request.path_params["row"], self._services.thumbnails
        # Browsers keep it, and ask each time whether it is the same: on one port there
        # may be another collection, with other photos by these rows, tomorrow.
        headers = {"cache-control": "private, no-cache"}
        try:
            async with self._shown_small:
                key = await asyncio.to_thread(thumbnails.key, row)
                headers["etag"] = f'"{key}"'
                if request.headers.get("if-none-match") == headers["etag"]:
                    return Response(status_code=304, headers=headers)
                data = await asyncio.to_thread(thumbnails.get, row, key)
            return Response(data, media_type="image/jpeg", headers=headers)
        except (PhotoGoneError, PhotoRefusedError, UndecodableImageError) as error:
            return tile(error)

    async def info(self, request: Request) -> Response:
        """What the page needs to know of the collection."""
        del request
        services = self._services
        collection = services.collection
        counts = collection.counts()
        classes = sorted({name.rpartition("/")[2] for name, _ in counts})
        return JSONResponse(
            {
                "num_photos": len(collection),
                "folders": [
                    {"name": escape_name(name), "count": count}
                    for name, count in counts
                ],
                "classes": [escape_name(name) for name in classes],
                "threshold": services.threshold,
                "threshold_origin": escape_name(services.threshold_origin),
                "predicts_classes": bool(services.class_names),
            }
        )

    async def rows(self, request: Request) -> Response:
        """Some photos of the collection, in the order of their folders and names."""
        collection = self._services.collection
        shown = collection.shown(collection.within(*part_of(request)))
        first = integer(request, "first", 0, 0, max(0, len(shown)))
        count = integer(request, "count", 500, 1, MAX_ROWS)
        return JSONResponse(
            {
                "num_photos": len(shown),
                "photos": [
                    {"row": row, "path": escape_name(collection.path(row))}
                    for row in shown[first : first + count].tolist()
                ],
            }
        )

    async def session(self, request: Request) -> Response:
        """Gives the page a cookie, since what it shows cannot send the token."""
        guard = request.state.guard
        answer = JSONResponse({"status": "ok"})
        answer.set_cookie(guard.cookie, guard.session, httponly=True, samesite="strict")
        return answer

    async def health(self, request: Request) -> Response:
        """That the server answers."""
        del request
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """What the server has counted."""
        del request
        return PlainTextResponse(
            self._services.meters.text(), media_type="text/plain; version=0.0.4"
        )

    async def _embedding(self, request: Request) -> Embedding:
        services = self._services
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(services.gate.enter())
            except GateFullError:
                await drain(request)
                raise
            data = await read_photo(request, place=place)
            job = services.network_job(data)
            image = await asyncio.wrap_future(services.decoders.submit(job))
            return await asyncio.wrap_future(services.embedder.submit(image))

    def _query(self, body: dict[str, Any]) -> tuple[np.ndarray, int | None]:
        """The descriptor that JSON means, and the row that is not to be found."""
        if body.keys() == {"descriptor"}:
            return descriptor_of(body["descriptor"]), None
        row = body.get("row")
        if body.keys() != {"row"} or not isinstance(row, int) or isinstance(row, bool):
            raise UploadRefusedError(
                400, 'found other JSON, expected {"descriptor": [...]} or {"row": 5}'
            )
        if not self._services.collection.has(row):
            raise UploadRefusedError(404, f"there is no photo of row {row}")
        return self._services.search.descriptor(row), row

    def _neighbour(self, found: Neighbour) -> dict[str, Any]:
        return {
            "row": found.row,
            "path": escape_name(self._services.collection.path(found.row)),
            # Rounding makes some of equal photos a little more than 1.
            "similarity": min(1.0, max(-1.0, found.similarity)),
        }


def descriptor_of(value: object) -> np.ndarray:
    """A descriptor that a client sent, of unit length: float32.

    Raises:
        UploadRefusedError: it is none, or has no direction.
    """
    numbers = value if isinstance(value, list) else []
    is_plain = all(type(n) in (int, float) and n == n for n in numbers)
    largest = max(map(abs, numbers), default=0) if is_plain else 0
    if not 0 < largest <= FLOAT32_MAX:
        raise UploadRefusedError(
            400, "descriptor: expected a list of numbers, finite and not all zero"
        )
    scaled = np.array(numbers, np.float64) / float(largest)
    return (scaled / np.linalg.norm(scaled)).astype(np.float32)


def integer(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number of a request's query.

    Raises:
        UploadRefusedError: it is none, or beyond its bounds.
    """
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII) or not least <= int(text) <= most:
        raise UploadRefusedError(
            400, f"{name}: found {text!r}, expected a number from {least} to {most}"
        )
    return int(text)


def part_of(request: Request) -> tuple[str | None, str | None]:
    """The folder and the class that a request is about; None: all.

    A folder is told by the name that the page knows, and compared with those of the
    collection: it never becomes a path.
    """
    query = request.query_params
    folder, class_name = query.get("folder") or None, query.get("class")
    return (
        None if folder is None else unescape_name(folder),
        None if class_name is None else unescape_name(class_name),
    )


def tile(error: Exception) -> Response:
    """A grey picture that says why there is no photo."""
    gone = isinstance(error, PhotoGoneError)
    said = "not there any more" if gone else "cannot be shown"
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="320" '
        'viewBox="0 0 320 320"><rect width="320" height="320" fill="#8a94a0"/>'
        '<text x="160" y="160" text-anchor="middle" font-family="sans-serif" '
        f'font-size="24" fill="#ffffff">{escape(said)}</text></svg>'
    )
    return Response(
        picture,
        status_code=404 if gone else 422,
        media_type="image/svg+xml",
    )
