"""The ASGI application: all routes behind the guard."""

from __future__ import annotations

from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from . import a1111, openai_api, own_api
from .answers import error_answer, guarded, json_answer
from .errors import RequestError
from .guard import Guard
from .openapi import description
from .studio import Studio

PAGE = {  # files of the page -> media type
    **{
        f"{name}.js": "text/javascript"
        for name in ("script", "form", "gallery", "map", "mask", "server", "tools")
    },
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def build(studio: Studio) -> ASGIApp:
    """The ASGI application of a server."""
    app = Starlette(
        routes=all_routes(studio),
        exception_handlers={HTTPException: _http_error, Exception: _failure},
    )
    app.router.redirect_slashes = False
    return Guard(app, studio.options, studio.gallery)


def all_routes(studio: Studio) -> list[BaseRoute]:
    """The routes of all APIs and of the page."""

    async def openapi(request: Request) -> Response:
        return json_answer(description(studio))

    return [
        Route("/", guarded(_index), methods=["GET"]),
        Route("/page/{name}", guarded(_page_file), methods=["GET"]),
        Route("/favicon.ico", guarded(_icon), methods=["GET"]),
        Route("/health", guarded(_health), methods=["GET"]),
        Route("/openapi.json", guarded(openapi), methods=["GET"]),
        *openai_api.routes(studio),
        *own_api.routes(studio),
        *a1111.routes(studio),
    ]


async def _index(request: Request) -> Response:
    return _static("index.html", "text/html")


async def _page_file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in PAGE:
        raise RequestError(404, "There is nothing at this address.", code="not_found")
    return _static(name, PAGE[name])


async def _icon(request: Request) -> Response:
    return _static("icon.svg", PAGE["icon.svg"])


async def _health(request: Request) -> Response:
    return json_answer({"status": "ok"})


def _static(name: str, media_type: str) -> Response:
    content = (files("mlx_starflow.server") / "page" / name).read_bytes()
    return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        told = RequestError(404, "There is nothing at this address.", code="not_found")
    elif status == 405:
        told = RequestError(405, "This address needs another HTTP method.", code="wrong_method")
    else:
        told = RequestError(status, "The request cannot be read.", code="bad_request")
    return error_answer(told)


async def _failure(request: Request, error: Exception) -> Response:
    return error_answer(error)
