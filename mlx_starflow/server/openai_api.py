"""Routes of OpenAI's images API: generations, edits, variations, models."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import AsyncGenerator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..pictures.metadata import settings_in
from ..pictures.opening import opened_data
from .answers import guarded, json_answer, owner_of, sse, stream_answer, while_connected
from .asked import Asked, read_asked
from .errors import RequestError
from .fields import Fields, shown
from .job import Job, Update
from .studio import Inbox, Saved, Studio
from .tasks import edit_task, vary_task
from .uploads import FORMATS, Body, decoded, mask_of, opaque, read_body

QUALITIES = ("auto", "standard", "hd", "low", "medium", "high")
PREVIEW_QUALITY = 85
VARIATION = 0.3  # default strength of a variation
WITHOUT_MASK = 0.6  # default strength of an edit without a mask


def routes(studio: Studio) -> list[Route]:
    """All routes of this module."""
    api = _Images(studio)
    return [
        Route("/v1/images/generations", guarded(api.generations), methods=["POST"]),
        Route("/v1/images/edits", guarded(api.edits), methods=["POST"]),
        Route("/v1/images/variations", guarded(api.variations), methods=["POST"]),
        Route("/v1/models", guarded(api.models), methods=["GET"]),
        Route("/v1/models/{name:path}", guarded(api.model), methods=["GET"]),
    ]


class _Images:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def generations(self, request: Request) -> Response:
        studio = self._studio
        body = await read_body(request, studio.limits)
        fields = body.fields
        headers = self._model_headers(fields)
        needed = studio.prompt_needed
        asked = read_asked(fields, studio.limits, studio.facts["sizes"], needed)
        partial = fields.whole("partial_images", 0, 3, 0) or 0
        stream = fields.flag("stream")
        quality = fields.choice("quality", QUALITIES, "auto")
        fields.choice("response_format", ("url", "b64_json"), "b64_json")
        job, inbox = studio.draw(owner_of(request, fields), asked, previews=stream and partial > 0)
        if stream:
            told = _Told("image_generation", asked, quality)
            return stream_answer(self._events(request, job, inbox, asked, told, partial), headers)
        return await self._pictures(request, fields, job, inbox, asked, headers)

    async def edits(self, request: Request) -> Response:
        studio = self._studio
        body = await read_body(request, studio.limits)
        headers = self._model_headers(body.fields)
        asked = read_asked(body.fields, studio.limits, studio.facts["sizes"], studio.prompt_needed)
        given = self._image(body)
        if len(body.files.get("image[]", [])) + len(body.files.get("image", [])) > 1:
            headers["x-mlx-starflow-notice"] = "Only the first image was edited."
        picture = opaque(given)
        mask = self._mask(body, given)
        if mask is None:
            strength = body.fields.number("strength", 0, 1, WITHOUT_MASK) or 0.0
            task = vary_task(picture, asked.prompt, strength, asked.seeds, _weight(asked))
        else:
            task = edit_task(
                picture, mask, asked.prompt, asked.seeds, _weight(asked), asked.best_of
            )
        return await self._run(request, body.fields, "edit", task, asked, headers)

    async def variations(self, request: Request) -> Response:
        studio = self._studio
        body = await read_body(request, studio.limits)
        headers = self._model_headers(body.fields)
        asked = read_asked(body.fields, studio.limits, studio.facts["sizes"], False)
        given = self._image(body)
        data = body.file("image", "image[]")
        prompt = asked.prompt or _stored_prompt(data or b"", studio)
        strength = body.fields.number("strength", 0, 1, VARIATION) or 0.0
        task = vary_task(opaque(given), prompt, strength, asked.seeds, _weight(asked))
        return await self._run(request, body.fields, "vary", task, asked, headers)

    async def models(self, request: Request) -> Response:
        return json_answer({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._studio.model_ids:
            raise RequestError(
                404, f"This server has no model {shown(name)}.", "model", "model_not_found"
            )
        return json_answer(self._model())

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._studio.model_id,
            "object": "model",
            "created": self._studio.started,
            "owned_by": "mlx-starflow",
        }

    def _model_headers(self, fields: Fields) -> dict[str, str]:
        """Response headers with the name of the model, and a notice if the request names another
        one. Errors: RequestError 404 in this case with --strict-model."""
        studio = self._studio
        headers = {"x-mlx-starflow-model": _header(studio.model_id)}
        name = fields.text("model", 200)
        if name is not None and name not in studio.model_ids:
            if studio.options.strict_model:
                raise RequestError(
                    404,
                    f"This server has no model {shown(name)}; it has {studio.model_id!r}.",
                    "model",
                    "model_not_found",
                )
            notice = f"{_header(name)} is not available; drawn by {_header(studio.model_id)}"
            headers["x-mlx-starflow-notice"] = notice
        return headers

    def _image(self, body: Body) -> Image.Image:
        data = body.file("image", "image[]")
        if data is None:
            raise RequestError(400, "image is missing; send a picture as a file.", "image")
        return decoded(data, self._studio.limits)

    def _mask(self, body: Body, picture: Image.Image) -> np.ndarray | None:
        """A mask of the part to redraw: where the mask or, without one, the picture is transparent.
        None if neither is given."""
        data = body.file("mask")
        if data is None:
            if picture.mode != "RGBA":
                return None
            mask = mask_of(picture, alpha_only=True)
            return mask if mask.any() else None
        given = decoded(data, self._studio.limits, "mask")
        if given.size != picture.size:
            raise RequestError(
                400,
                f"mask is {given.width}x{given.height} pixels and image "
                f"{picture.width}x{picture.height}; they must have the same size.",
                "mask",
            )
        mask = mask_of(given, alpha_only=given.mode == "RGBA")
        if not mask.any():
            raise RequestError(
                400,
                "mask is opaque everywhere; make the part to redraw transparent.",
                "mask",
            )
        return mask

    async def _run(
        self,
        request: Request,
        fields: Fields,
        kind: str,
        task: Any,
        asked: Asked,
        headers: dict[str, str],
    ) -> Response:
        stream = fields.flag("stream")
        quality = fields.choice("quality", QUALITIES, "auto")
        job, inbox = self._studio.task(owner_of(request, fields), kind, task)
        whole = dataclasses.replace(asked, best_of=False)  # the task itself chooses the best
        if stream:
            told = _Told("image_edit", asked, quality)
            return stream_answer(self._events(request, job, inbox, whole, told, 0), headers)
        return await self._pictures(request, fields, job, inbox, whole, headers)

    async def _pictures(
        self,
        request: Request,
        fields: Fields,
        job: Job,
        inbox: Inbox,
        asked: Asked,
        headers: dict[str, str],
    ) -> Response:
        as_url = fields.choice("response_format", ("url", "b64_json"), _usual_form(fields)) == "url"

        async def collect() -> list[Saved]:
            work = self._studio.follow(job, inbox, asked)
            return [one async for one in work if isinstance(one, Saved)]

        saved = await while_connected(request, self._studio, job, collect())
        saved.sort(key=lambda one: one.index)
        data = [self._record(request, one, as_url) for one in saved]
        answer = {"created": int(time.time()), "data": data, "output_format": asked.form.format}
        return json_answer(answer, headers=headers)

    def _record(self, request: Request, one: Saved, as_url: bool) -> dict[str, Any]:
        settings = {k: v for k, v in one.metadata.items() if k not in ("blocks", "noise")}
        record: dict[str, Any] = {"seed": one.seed, "log_prob_gain": one.gain, "settings": settings}
        if as_url:
            key = self._studio.gallery.key(one.kept.name)
            record["url"] = f"{request.base_url}files/{one.kept.name}?key={key}"
        else:
            record["b64_json"] = base64.b64encode(one.content).decode()
        return record

    async def _events(
        self, request: Request, job: Job, inbox: Inbox, asked: Asked, told: _Told, partial: int
    ) -> AsyncGenerator[bytes, None]:
        shows = _last_blocks(self._studio, partial)
        counts: dict[int, int] = {}
        work = self._studio.follow(job, inbox, asked)
        try:
            async for one in work:
                if isinstance(one, Saved):
                    record = self._record(request, one, as_url=False)
                    yield told.event("completed", **record)
                elif one.event == "preview" and one.data["block"] in shows and one.image:
                    number = one.picture or 0
                    index = counts.get(number, 0)
                    counts[number] = index + 1
                    content = told.preview(one)
                    yield told.event("partial_image", b64_json=content, partial_image_index=index)
        finally:
            await work.aclose()


class _Told:
    """Makes the events of one streamed request."""

    def __init__(self, kind: str, asked: Asked, quality: str) -> None:
        self._kind, self._asked, self._quality = kind, asked, quality

    def event(self, what: str, **data: Any) -> bytes:
        size = self._asked.size
        kind = f"{self._kind}.{what}"
        about = {
            "type": kind,
            "created_at": int(time.time()),
            "size": f"{size[0]}x{size[1]}" if size else "auto",
            "quality": self._quality,
            "background": "opaque",
            "output_format": self._asked.form.format,
        }
        return sse(kind, {**about, **data})

    def preview(self, update: Update) -> str:
        image = update.image
        if image is None:
            return ""
        if self._asked.size is not None:
            image = image.resize(self._asked.size, Image.Resampling.BILINEAR)
        content = BytesIO()
        form = self._asked.form.format.upper()
        image.save(content, format=form, quality=PREVIEW_QUALITY)
        return base64.b64encode(content.getvalue()).decode()


def _last_blocks(studio: Studio, partial: int) -> range:
    """The blocks after which a partial picture is sent: the last ones to be inverted, with the
    lowest indices, since the picture appears there."""
    return range(min(partial, studio.facts["limits"]["blocks"]))


def _usual_form(fields: Fields) -> str:
    """The default of response_format, as in the OpenAI API: "url" for DALL-E models."""
    name = fields.text("model", 200) or ""
    return "url" if name.startswith("dall-e") else "b64_json"


def _weight(asked: Asked) -> float | None:
    return asked.options.get("guidance")


def _stored_prompt(data: bytes, studio: Studio) -> str:
    """The prompt in the settings stored in a picture, or ""."""
    with opened_data(data, "image", FORMATS) as picture:
        settings = settings_in(picture) or {}
    prompt = settings.get("prompt")
    fits = isinstance(prompt, str) and len(prompt) <= studio.limits.prompt
    return prompt if fits and isinstance(prompt, str) else ""


def _header(text: str) -> str:
    """A text with only characters that are allowed in a header."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in text)[:100]
