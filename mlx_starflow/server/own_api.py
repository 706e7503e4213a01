"""This server's own routes under /api, for the page and for apps; and the picture files."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ..errors import ImageError
from ..pictures.metadata import settings_in
from ..pictures.opening import opened_data
from .answers import (
    guarded,
    json_answer,
    owner_of,
    result_of,
    sse,
    stream_answer,
    while_connected,
)
from .asked import Asked, read_asked, read_counts, read_form, read_seeds, read_size
from .errors import RequestError
from .fields import Fields
from .gallery import LARGEST
from .job import Drawn, Job, Task, Update
from .studio import Inbox, Saved, Studio
from .tasks import edit_task, encode_task, interpolate_task, score_task, vary_task
from .uploads import FORMATS, Body, decoded, mask_of, opaque, read_body

PAGE = 60  # default number of pictures in a list of the gallery
MOST_LISTED = 200
PREVIEW_QUALITY = 80
LONGEST_SETTINGS = 200_000  # most characters of a picture's settings in a response


def routes(studio: Studio) -> list[Route]:
    """All routes of this module."""
    api = _Api(studio)
    posts = {
        "generate": api.generate,
        "edit": api.edit,
        "vary": api.vary,
        "interpolate": api.interpolate,
        "score": api.score,
        "encode": api.encode,
        "settings": api.settings,
    }
    return [
        Route("/api/capabilities", guarded(api.capabilities), methods=["GET"]),
        *[Route(f"/api/{name}", guarded(f), methods=["POST"]) for name, f in posts.items()],
        Route("/api/queue", guarded(api.queue), methods=["GET"]),
        Route("/api/jobs/{job}", guarded(api.job), methods=["GET"]),
        Route("/api/jobs/{job}", guarded(api.cancel), methods=["DELETE"]),
        Route("/api/gallery", guarded(api.gallery), methods=["GET"]),
        Route("/api/gallery/{picture}", guarded(api.picture), methods=["GET"]),
        Route("/api/gallery/{picture}", guarded(api.delete), methods=["DELETE"]),
        Route("/files/{picture}", guarded(api.file), methods=["GET"]),
    ]


class _Api:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def capabilities(self, request: Request) -> Response:
        return json_answer(self._studio.capabilities())

    async def generate(self, request: Request) -> Response:
        studio = self._studio
        fields = (await read_body(request, studio.limits)).fields
        asked = read_asked(fields, studio.limits, studio.facts["sizes"], False)
        if asked.best_of and not asked.prompt:
            raise RequestError(400, "best_of needs a prompt.", "prompt")
        stream = fields.flag("stream", True)
        previews = stream and fields.flag("previews", True)
        job, inbox = studio.draw(owner_of(request, fields), asked, previews, follows=stream)
        return await self._answer(request, job, inbox, asked, stream)

    async def edit(self, request: Request) -> Response:
        body = await read_body(request, self._studio.limits)
        fields = body.fields
        given = self._given(body)
        data = body.file("mask")
        if data is None:
            raise RequestError(400, "mask is missing; send a picture as a file.", "mask")
        mask_picture = decoded(data, self._studio.limits, "mask")
        if mask_picture.size != given.size:
            raise RequestError(
                400,
                f"mask is {mask_picture.width}x{mask_picture.height} pixels and the picture "
                f"{given.width}x{given.height}; they must have the same size.",
                "mask",
            )
        mask: np.ndarray = mask_of(mask_picture, alpha_only=False)
        if not mask.any():
            raise RequestError(400, "mask is empty: it has no white or transparent pixels.", "mask")
        count, best_of = read_counts(fields, self._studio.limits)
        asked = Asked(
            fields.text("prompt", self._studio.limits.prompt, "") or "",
            read_seeds(fields, max(count, best_of)),
            {},
            read_size(fields, self._studio.limits),
            False,
            read_form(fields),
        )
        guidance = fields.number("guidance", 0, 100)
        task = edit_task(opaque(given), mask, asked.prompt, asked.seeds, guidance, best_of > 1)
        return await self._pictures(request, fields, "edit", task, asked)

    async def vary(self, request: Request) -> Response:
        """Variations of a picture. With "keep" false they are sent but not saved."""
        body = await read_body(request, self._studio.limits)
        fields = body.fields
        given = self._given(body)
        count, _ = read_counts(fields, self._studio.limits)
        asked = Asked(
            fields.text("prompt", self._studio.limits.prompt, "") or "",
            read_seeds(fields, count),
            {},
            read_size(fields, self._studio.limits),
            False,
            read_form(fields),
        )
        strength = fields.number("strength", 0, 1, 0.2) or 0.0
        guidance = fields.number("guidance", 0, 100)
        task = vary_task(opaque(given), asked.prompt, strength, asked.seeds, guidance)
        if fields.flag("keep", True):
            return await self._pictures(request, fields, "vary", task, asked)
        job, inbox = self._studio.task(owner_of(request, fields), "vary", task)

        def told(result: list[Drawn]) -> dict[str, Any]:
            rows = [{"seed": d.seed, "b64_json": _base64(d.image, "PNG")} for d in result]
            return {"pictures": rows}

        return await self._result(request, fields, job, inbox, told)

    async def interpolate(self, request: Request) -> Response:
        """Frames between two pictures ("image", "image2" or "picture", "picture2") or two seeds
        ("seed", "seed2"). They are sent but not saved."""
        limits = self._studio.limits
        body = await read_body(request, limits)
        fields = body.fields
        frames = fields.whole("frames", 2, limits.frames, 9) or 9
        prompt = fields.text("prompt", limits.prompt, "") or ""
        prompts = [prompt, fields.text("prompt2", limits.prompt, prompt) or ""]
        guidance = fields.number("guidance", 0, 100)
        if self._has_picture(body):
            first, second = self._given(body), self._given(body, "image2", "picture2")
            task = interpolate_task((opaque(first), opaque(second)), prompts, frames, guidance)
        else:
            if not fields.given("seed"):
                raise RequestError(400, "Give two pictures, or seed and seed2.", "seed")
            one = read_seeds(fields, 1)[0]
            two = fields.whole("seed2", 0, self._studio.facts["limits"]["seed"][1], one)
            task = interpolate_task((one, one if two is None else two), prompts, frames, guidance)
        job, inbox = self._studio.task(owner_of(request, fields), "interpolate", task)

        def told(result: list[Image.Image]) -> dict[str, Any]:
            return {"frames": [_base64(frame, "PNG") for frame in result], "format": "png"}

        return await self._result(request, fields, job, inbox, told)

    async def score(self, request: Request) -> Response:
        """log p of a picture under several prompts, and a map of its surprise."""
        limits = self._studio.limits
        body = await read_body(request, limits)
        fields = body.fields
        prompts = fields.texts("prompt", limits.prompt, limits.prompts)
        draws = fields.whole("draws", 1, limits.draws, 4) or 4
        seed = fields.whole("seed", 0, self._studio.facts["limits"]["seed"][1], 0) or 0
        task = score_task(opaque(self._given(body)), prompts, draws, seed)
        job, inbox = self._studio.task(owner_of(request, fields), "score", task)

        def told(result: tuple[dict[str, Any], Image.Image]) -> dict[str, Any]:
            record, picture = result
            return {**record, "map": {**record["map"], "b64_json": _base64(picture, "PNG")}}

        return await self._result(request, fields, job, inbox, told)

    async def encode(self, request: Request) -> Response:
        body = await read_body(request, self._studio.limits)
        fields = body.fields
        prompt = fields.text("prompt", self._studio.limits.prompt, "") or ""
        task = encode_task(opaque(self._given(body)), prompt, fields.number("guidance", 0, 100))
        job, inbox = self._studio.task(owner_of(request, fields), "encode", task)
        return await self._result(request, fields, job, inbox, dict)

    async def settings(self, request: Request) -> Response:
        """The settings stored in an uploaded picture; null if there are none."""
        body = await read_body(request, self._studio.limits)
        data = body.file("image")
        if data is None:
            raise RequestError(400, "image is missing; send a picture as a file.", "image")
        try:
            with opened_data(data, "image", FORMATS) as picture:
                found = settings_in(picture)
        except Exception:  # for broken files, Pillow raises many kinds of errors
            raise ImageError("image is not a picture that can be read.") from None
        if found is None:
            return json_answer({"settings": None})
        shown = {k: v for k, v in found.items() if k not in ("blocks", "noise")}
        try:
            size = len(json.dumps(shown, allow_nan=False))
        except ValueError:
            size = LONGEST_SETTINGS + 1
        if size > LONGEST_SETTINGS:
            raise ImageError("The settings in this picture are too long or contain NaN.")
        return json_answer({"settings": shown})

    async def queue(self, request: Request) -> Response:
        return json_answer(self._studio.scheduler.status())

    async def job(self, request: Request) -> Response:
        return json_answer(self._job(request).describe())

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        self._studio.scheduler.cancel(job)
        return json_answer(job.describe())

    async def gallery(self, request: Request) -> Response:
        fields = Fields(request.query_params, form=True)
        most = fields.whole("limit", 1, MOST_LISTED, PAGE) or PAGE
        gallery = self._studio.gallery
        rows, more = gallery.list(most, fields.text("before", 200))
        return json_answer({"pictures": [gallery.describe(row) for row in rows], "before": more})

    async def picture(self, request: Request) -> Response:
        gallery = self._studio.gallery
        return json_answer(gallery.describe(gallery.find(request.path_params["picture"])))

    async def delete(self, request: Request) -> Response:
        self._studio.gallery.delete(request.path_params["picture"])
        return json_answer({"deleted": request.path_params["picture"]})

    async def file(self, request: Request) -> Response:
        """A picture file. Its address has a key, since browsers load pictures without headers."""
        kept = self._studio.gallery.find(request.path_params["picture"])
        return FileResponse(
            kept.path,
            media_type=kept.media_type,
            headers={"cache-control": "private, max-age=3600"},
        )

    async def _pictures(
        self, request: Request, fields: Fields, kind: str, task: Task, asked: Asked
    ) -> Response:
        job, inbox = self._studio.task(owner_of(request, fields), kind, task)
        return await self._answer(request, job, inbox, asked, fields.flag("stream"))

    async def _answer(
        self, request: Request, job: Job, inbox: Inbox, asked: Asked, stream: bool
    ) -> Response:
        """The pictures of a job: as events if ``stream``, else as JSON when all are finished."""
        if stream:
            return stream_answer(self._events(job, inbox, asked))

        async def collect() -> list[Saved]:
            work = self._studio.follow(job, inbox, asked)
            return [one async for one in work if isinstance(one, Saved)]

        saved = await while_connected(request, self._studio, job, collect())
        saved.sort(key=lambda one: one.index)
        return json_answer({"job": job.id, "pictures": [self._saved(one) for one in saved]})

    async def _events(self, job: Job, inbox: Inbox, asked: Asked) -> AsyncGenerator[bytes, None]:
        pictures = []
        work = self._studio.follow(job, inbox, asked)
        try:
            async for one in work:
                if isinstance(one, Saved):
                    pictures.append(self._saved(one))
                    yield sse("picture", {"event": "picture", "job": job.id, **pictures[-1]})
                else:
                    yield _told(one)
        finally:
            await work.aclose()
        yield sse("finished", {"event": "finished", "job": job.id, "pictures": pictures})

    async def _result(
        self, request: Request, fields: Fields, job: Job, inbox: Inbox, told: Any
    ) -> Response:
        """The result of a task as JSON, made by ``told``; with the field "stream" as events."""
        if fields.flag("stream"):
            return stream_answer(self._progress(job, inbox, told))
        result = await while_connected(request, self._studio, job, result_of(inbox))
        return json_answer({"job": job.id, **told(result)})

    async def _progress(self, job: Job, inbox: Inbox, told: Any) -> AsyncGenerator[bytes, None]:
        try:
            async for update in inbox:
                if update.event != "finished":
                    yield _told(update)
                    continue
                result = {"event": "finished", "job": job.id, **told(update.value)}
                yield sse("finished", result)
        finally:
            self._studio.scheduler.cancel(job)  # has no effect if it has ended

    def _saved(self, one: Saved) -> dict[str, Any]:
        return {
            **self._studio.gallery.describe(one.kept),
            "picture": one.index,
            "seed": one.seed,
            "log_prob_gain": one.gain,
        }

    def _job(self, request: Request) -> Job:
        job = self._studio.scheduler.job(request.path_params["job"])
        if job is None:
            raise RequestError(404, "There is no such job.", "job", "not_found")
        return job

    def _has_picture(self, body: Body) -> bool:
        return body.file("image") is not None or body.fields.given("picture")

    def _given(self, body: Body, file: str = "image", name: str = "picture") -> Image.Image:
        """The picture that is uploaded as a file, or the one in the gallery that is named."""
        data = body.file(file)
        if data is None:
            text = body.fields.text(name, 200)
            if text is None:
                raise RequestError(
                    400, f"Send {file} as a file, or {name}, a name in the gallery.", file
                )
            kept = self._studio.gallery.find(text)
            if kept.bytes > LARGEST:
                raise RequestError(413, f"{name}: the file is too large.", name)
            data = kept.path.read_bytes()
        return decoded(data, self._studio.limits, file)


def _told(update: Update) -> bytes:
    """An update as a server-sent event; a preview contains its picture."""
    data = {"event": update.event, **update.data}
    if update.image is not None:
        data = {k: v for k, v in data.items() if k != "latents"}
        data["b64_json"] = _base64(update.image, "WEBP")
    return sse(update.event, data)


def _base64(image: Image.Image, form: str) -> str:
    content = BytesIO()
    image.save(content, format=form, quality=PREVIEW_QUALITY)
    return base64.b64encode(content.getvalue()).decode()
