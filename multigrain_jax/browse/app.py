"""The application: the API, the page, and what stands before both."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from multigrain_jax.browse.api import Api
from multigrain_jax.browse.gate import GateFullError
from multigrain_jax.browse.meters import Metered
from multigrain_jax.browse.openapi import document
from multigrain_jax.browse.review import Review
from multigrain_jax.browse.security import Guard, refused
from multigrain_jax.browse.services import Services
from multigrain_jax.browse.uploads import UploadRefusedError
from multigrain_jax.data.image_file import UndecodableImageError
from multigrain_jax.errors import InputError

STATIC = Path(__file__).with_name("static")


def make_app(
    services: Services,
    review: Review,
    *,
    host: str,
    port: int,
    token: str | None,
) -> ASGIApp:
    """The application of a server.

    Args:
        services: what it answers from.
        review: answers what is about duplicates.
        host: what the server listens on.
        port: where.
        token: what clients must send; None: nothing.
    """

    async def too_many(request: Request, error: Exception) -> Response:
        assert isinstance(error, GateFullError)
        services.meters.count("rejected_total")
        answer = refused(503, str(error))
        answer.headers["retry-after"] = str(error.retry_after_s)
        return answer

    api = [*Api(services).routes(), *review.routes()]
    routes: list[BaseRoute] = [
        *api,
        Route("/openapi.json", openapi),
        Route("/", page("index.html")),
        Route("/docs", page("docs.html")),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    inner = Starlette(
        routes=routes,
        exception_handlers={
            GateFullError: too_many,
            UploadRefusedError: upload_refused,
            UndecodableImageError: undecodable,
            InputError: bad_input,
            404: not_found,
            405: not_found,
            500: failed,
        },
    )
    paths = [route.path.partition("/{")[0] for route in api]
    metered = Metered(inner, services.meters, paths=[*paths, "/static", "/docs"])
    return Guard(metered, host=host, port=port, token=token)


def page(name: str):
    """What answers with a file of the page."""

    async def answer(request: Request) -> Response:
        del request
        return FileResponse(STATIC / name, media_type="text/html; charset=utf-8")

    return answer


async def openapi(request: Request) -> Response:
    """The description of the API."""
    del request
    return JSONResponse(document())


async def upload_refused(request: Request, error: Exception) -> Response:
    """An answer to what cannot be answered."""
    del request
    assert isinstance(error, UploadRefusedError)
    answer = refused(error.status, str(error))
    if error.status in (408, 413):
        # The rest of the body is not read.
        answer.headers["connection"] = "close"
    return answer


async def undecodable(request: Request, error: Exception) -> Response:
    """An answer to what is no photo."""
    del request
    return refused(422, f"this is no photo that can be read: {error}")


async def bad_input(request: Request, error: Exception) -> Response:
    """An answer to what does not fit the collection."""
    del request
    return refused(400, str(error))


async def not_found(request: Request, error: Exception) -> Response:
    """An answer to what there is not."""
    status = getattr(error, "status_code", 404)
    return refused(status, f"{request.method} {request.url.path}: see /docs")


async def failed(request: Request, error: Exception) -> Response:
    """An answer where the server is at fault; the log has the rest."""
    del request
    return refused(500, f"the server failed: {type(error).__name__}")
