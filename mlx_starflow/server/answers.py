"""Answers of all routes: JSON, errors, server-sent events, and waiting while a client is there."""

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
SILENCE = 15.0  # seconds after which a stream sends a comment, so that nothing in between closes it
EVENT_STREAM = "text/event-stream"


def json_answer(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON without NaN, which browsers do not read."""
    content = json.dumps(data, allow_nan=False, ensure_ascii=True)
    return Response(content, status, headers, media_type="application/json")


def error_answer(error: BaseException) -> Response:
    """The JSON form of an error; faults of the program go to the log."""
    if not isinstance(error, StarflowError):
        log.error("a request failed", exc_info=error)
    told = errors.answer(error)
    return json_answer(told.body, told.status, told.headers)


Route = Callable[[Request], Awaitable[Response]]


def guarded(route: Route) -> Route:
    """The route with errors turned into JSON answers."""

    async def answer(request: Request) -> Response:
        try:
            return await route(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return error_answer(error)

    return answer


def owner_of(request: Request, fields: Fields) -> str:
    """Who waits in the queue for whom: clients are told apart by address and by the "user" field
    or, without one, by their program."""
    host = request.client.host if request.client else ""
    user = fields.text("user", 200) or request.headers.get("user-agent", "")[:200]
    return f"{host} {user}"


async def while_connected(request: Request, studio: Studio, job: Job, work: Awaitable[T]) -> T:
    """The result of waiting for a job; the job is cancelled when the client goes away."""
    waiting = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            studio.scheduler.cancel(job)
            raise Cancelled("The client has gone away.")
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
    """What a task returned."""
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
    """A stream of server-sent events; an error in it is its last event."""
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
