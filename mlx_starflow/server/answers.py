"""HTTP responses: JSON, errors, server-sent events, and waiting for a job while the client is
connected."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import Cancelled, StarflowError
from . import errors
from .fields import Fields
from .job import ENDED, Job
from .studio import Inbox, Studio

T = TypeVar("T")
log = logging.getLogger("mlx_starflow.server")
SILENCE = 15.0  # seconds without events after which a stream sends a comment, as a keep-alive
EVENT_STREAM = "text/event-stream"


def json_answer(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response. NaN, which browsers cannot parse, raises a ValueError."""
    content = json.dumps(data, allow_nan=False, ensure_ascii=True)
    return Response(content, status, headers, media_type="application/json")


def error_answer(error: BaseException) -> Response:
    """The JSON response for an error; unexpected errors are logged."""
    if not isinstance(error, StarflowError):
        log.error("a request failed", exc_info=error)
    told = errors.answer(error)
    return json_answer(told.body, told.status, told.headers)


Route = Callable[[Request], Awaitable[Response]]


def guarded(route: Route) -> Route:
    """The route with errors turned into JSON responses."""

    async def answer(request: Request) -> Response:
        try:
            return await route(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return error_answer(error)

    return answer


def owner_of(request: Request, fields: Fields) -> str:
    """The name of a client for the queue: its address and the field "user", or, without one, its
    user agent."""
    host = request.client.host if request.client else ""
    user = fields.text("user", 200) or request.headers.get("user-agent", "")[:200]
    return f"{host} {user}"


async def while_connected(request: Request, studio: Studio, job: Job, work: Awaitable[T]) -> T:
    """The result of ``work``, which waits for a job. The job is cancelled if the client
    disconnects. Errors: Cancelled."""
    waiting = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            studio.scheduler.cancel(job)
            raise Cancelled("The client has disconnected.")
        return await waiting
    finally:
        for task in (waiting, gone):
            task.cancel()
        if job.state not in ENDED:
            studio.scheduler.cancel(job)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def result_of(inbox: Inbox) -> Any:
    """Wait for a task and return its result."""
    result = None
    async for update in inbox:
        if update.event == "finished":
            result = update.value
    return result


def sse(event: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True)
    return f"event: {event}\ndata: {text}\n\n".encode()


def stream_answer(
    events: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None
) -> Response:
    """A response that streams server-sent events; if an error occurs, it is the last event."""
    more = {"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})}
    return StreamingResponse(_kept_alive(events), headers=more, media_type=EVENT_STREAM)


async def _kept_alive(events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=SILENCE)
            if not done:
                yield b": waiting\n\n"
                continue
            try:
                chunk = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield chunk
    except Exception as error:
        if not isinstance(error, StarflowError):
            log.error("a stream failed", exc_info=error)
        yield sse("error", errors.body(error))
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
