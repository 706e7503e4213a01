"""Routes of AUTOMATIC1111's web UI, used by Draw Things, Open WebUI and SillyTavern."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answers import guarded, json_answer, owner_of, while_connected
from .asked import Asked, nearest, read_seeds
from .errors import RequestError
from .fields import Fields
from .studio import Saved, Studio
from .uploads import read_body

SMALLEST_SIDE = 16
ABSENT = ("upscalers", "latent-upscale-modes", "sd-vae", "schedulers")  # answered by empty lists


def routes(studio: Studio) -> list[Route]:
    """All routes of this module."""
    api = _WebUI(studio)
    return [
        Route("/sdapi/v1/options", guarded(api.options), methods=["GET", "POST"]),
        Route("/sdapi/v1/sd-models", guarded(api.models), methods=["GET"]),
        Route("/sdapi/v1/samplers", guarded(api.samplers), methods=["GET"]),
        Route("/sdapi/v1/progress", guarded(api.progress), methods=["GET"]),
        *[Route(f"/sdapi/v1/{name}", guarded(_nothing), methods=["GET"]) for name in ABSENT],
        Route("/sdapi/v1/txt2img", guarded(api.txt2img), methods=["POST"]),
    ]


class _WebUI:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def options(self, request: Request) -> Response:
        """The name of the loaded model. POST is accepted without effect."""
        if request.method == "POST":
            await read_body(request, self._studio.limits)
            return json_answer(None)
        return json_answer({"sd_model_checkpoint": self._studio.model_id, "samples_format": "png"})

    async def models(self, request: Request) -> Response:
        name = self._studio.model_id
        facts = self._studio.facts["model"]
        return json_answer(
            [
                {
                    "title": name,
                    "model_name": name,
                    "hash": facts["weights"][:10],
                    "sha256": None,
                    "filename": name,
                    "config": None,
                }
            ]
        )

    async def samplers(self, request: Request) -> Response:
        names = self._studio.facts["samplers"]
        return json_answer([{"name": n, "aliases": [n], "options": {}} for n in names])

    async def progress(self, request: Request) -> Response:
        status = self._studio.scheduler.status()
        return json_answer(
            {
                "progress": 0.0,
                "eta_relative": status["seconds_left"] or 0.0,
                "state": {"job_count": status["waiting"] + status["drawing"], "interrupted": False},
                "current_image": None,
            }
        )

    async def txt2img(self, request: Request) -> Response:
        """Draw pictures. steps, cfg_scale and sampler_name, which are for diffusion models, are
        ignored; this server's own fields ``guidance`` and ``sampler`` are used."""
        studio = self._studio
        fields = (await read_body(request, studio.limits)).fields
        asked = self._asked(fields)
        job, inbox = studio.draw(owner_of(request, fields), asked)

        async def collect() -> list[Saved]:
            work = studio.follow(job, inbox, asked)
            return [one async for one in work if isinstance(one, Saved)]

        saved = await while_connected(request, studio, job, collect())
        saved.sort(key=lambda one: one.index)
        return json_answer(
            {
                "images": [base64.b64encode(one.content).decode() for one in saved],
                "parameters": _parameters(fields, asked),
                "info": json.dumps(self._info(asked, saved)),
            }
        )

    def _asked(self, fields: Fields) -> Asked:
        studio, limits = self._studio, self._studio.limits
        prompt = fields.text("prompt", limits.prompt, "") or ""
        if not prompt and studio.prompt_needed:
            raise RequestError(400, "prompt is missing.", "prompt", "missing")
        width = fields.whole("width", SMALLEST_SIDE, limits.side)
        height = fields.whole("height", SMALLEST_SIDE, limits.side)
        size = (width or height or 0, height or width or 0) if width or height else None
        count = (fields.whole("batch_size", 1, limits.pictures, 1) or 1) * (
            fields.whole("n_iter", 1, limits.pictures, 1) or 1
        )
        if count > limits.pictures:
            raise RequestError(
                400, f"{count} pictures are too many; at most {limits.pictures}.", "batch_size"
            )
        guidance = fields.number("guidance", 0, 100)
        weight = studio.facts["defaults"]["guidance"] if guidance is None else guidance
        negative = fields.text("negative_prompt", limits.prompt)
        if studio.facts["prompt"] != "text" or not weight:
            negative = None  # clients always send one, but it would have no effect here
        options: dict[str, Any] = {
            "guidance": guidance,
            "sampler": fields.text("sampler", 40),
            "negative_prompt": negative,
            "aspect_ratio": nearest(size, studio.facts["sizes"]) if size else None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return Asked(prompt, read_seeds(fields, count), given, size)

    def _info(self, asked: Asked, saved: list[Saved]) -> dict[str, Any]:
        first = saved[0]
        negative = asked.options.get("negative_prompt", "")
        texts = []
        for one in saved:
            lines = [asked.prompt, f"Negative prompt: {negative}"] if negative else [asked.prompt]
            facts = {
                "Steps": 1,
                "Sampler": one.metadata["sampler"],
                "CFG scale": one.metadata["guidance"],
                "Seed": one.seed,
                "Size": f"{one.image.width}x{one.image.height}",
                "Model hash": one.metadata["weights"][:10],
                "Model": self._studio.model_id,
            }
            texts.append("\n".join([*lines, ", ".join(f"{k}: {v}" for k, v in facts.items())]))
        return {
            "prompt": asked.prompt,
            "all_prompts": [asked.prompt] * len(saved),
            "negative_prompt": negative,
            "all_negative_prompts": [negative] * len(saved),
            "seed": first.seed,
            "all_seeds": [one.seed for one in saved],
            "subseed": 0,
            "all_subseeds": [0] * len(saved),
            "width": first.image.width,
            "height": first.image.height,
            "sampler_name": first.metadata["sampler"],
            "cfg_scale": first.metadata["guidance"],
            "steps": 1,
            "batch_size": len(saved),
            "sd_model_name": self._studio.model_id,
            "sd_model_hash": first.metadata["weights"][:10],
            "infotexts": texts,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        }


async def _nothing(request: Request) -> Response:
    """An empty list, for lists that clients request before they draw."""
    return json_answer([])


def _parameters(fields: Fields, asked: Asked) -> dict[str, Any]:
    """The parts of the request that were used."""
    return {
        "prompt": asked.prompt,
        "seed": asked.seeds[0],
        "batch_size": len(asked.seeds),
        "width": asked.size[0] if asked.size else None,
        "height": asked.size[1] if asked.size else None,
        **asked.options,
    }
