"""The description of all routes in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from ..version import __version__
from .a1111 import ABSENT
from .studio import Studio

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
FILE: Schema = {"type": "string", "format": "binary"}
OBJECT: Schema = {"type": "object"}
EVENTS = "text/event-stream"


def description(studio: Studio) -> Schema:
    """The document at /openapi.json."""
    drawing = _drawing(studio)
    own = {
        **drawing,
        "aspect_ratio": TEXT | {"enum": list(studio.facts["sizes"])},
        "previews": FLAG,
        "stream": FLAG | {"default": True},
    }
    compatible = {
        **drawing,
        "model": TEXT,
        "response_format": TEXT | {"enum": ["url", "b64_json"]},
        "quality": TEXT,
        "background": TEXT | {"enum": ["auto", "opaque"]},
        "user": TEXT,
        "stream": FLAG,
    }
    given = {"image": FILE, "picture": TEXT | {"description": "A name in the gallery."}}
    shown = {"prompt": TEXT, "guidance": NUMBER, "stream": FLAG}
    edited = {**compatible, "image": FILE, "mask": FILE, "strength": _between(NUMBER, 0, 1)}
    paths = {
        "/": _get("The page.", "text/html"),
        "/health": _get("Whether the server is running."),
        "/openapi.json": _get("This description."),
        "/v1/images/generations": _post(
            "Draw pictures (OpenAI).",
            {**compatible, "partial_images": _between(WHOLE, 0, 3)},
            ["prompt"],
        ),
        "/v1/images/edits": _form("Redraw part of a picture (OpenAI).", edited, ["image"]),
        "/v1/images/variations": _form("Variations of a picture (OpenAI).", edited, ["image"]),
        "/v1/models": _get("The loaded model."),
        "/v1/models/{name}": _get("The loaded model.", parameter="name"),
        "/api/capabilities": _get("Sizes, samplers, defaults, vocabulary, limits."),
        "/api/generate": _post("Draw pictures, with events.", own, []),
        "/api/edit": _form(
            "Redraw part of a picture.",
            {**given, **shown, "mask": FILE, "n": WHOLE, "best_of": WHOLE, "seed": WHOLE},
            ["mask"],
        ),
        "/api/vary": _form(
            "Variations of a picture.",
            {**given, **shown, "strength": _between(NUMBER, 0, 1), "n": WHOLE, "seed": WHOLE},
            [],
        ),
        "/api/interpolate": _form(
            "Pictures between two pictures or two seeds.",
            {
                **given,
                "image2": FILE,
                "picture2": TEXT,
                **shown,
                "prompt2": TEXT,
                "seed": WHOLE,
                "seed2": WHOLE,
                "frames": _between(WHOLE, 2, studio.limits.frames),
            },
            [],
        ),
        "/api/score": _form(
            "Log-likelihood of a picture, and a map of its surprise.",
            {
                **given,
                "prompt": {"type": "array", "items": TEXT},
                "draws": _between(WHOLE, 1, studio.limits.draws),
                "seed": WHOLE,
                "stream": FLAG,
            },
            [],
        ),
        "/api/encode": _form("The noise of a picture.", {**given, **shown}, []),
        "/api/settings": _form("The settings stored in a picture.", {"image": FILE}, ["image"]),
        "/api/queue": _get("Jobs that are waiting or running."),
        "/api/jobs/{job}": {
            **_get("The state of a job.", parameter="job"),
            "delete": _operation("Cancel a job.", parameter="job"),
        },
        "/api/gallery": _get("Pictures, newest first.", query={"limit": WHOLE, "before": TEXT}),
        "/api/gallery/{picture}": {
            **_get("A picture's settings.", parameter="picture"),
            "delete": _operation("Delete a picture.", parameter="picture"),
        },
        "/files/{picture}": _get("A picture.", "image/*", "picture", {"key": TEXT}),
        "/sdapi/v1/options": {
            **_get("The loaded model (AUTOMATIC1111)."),
            "post": _operation("Accepted without effect."),
        },
        "/sdapi/v1/sd-models": _get("The loaded model (AUTOMATIC1111)."),
        "/sdapi/v1/samplers": _get("The samplers (AUTOMATIC1111)."),
        "/sdapi/v1/progress": _get("The number of pictures to draw (AUTOMATIC1111)."),
        **{f"/sdapi/v1/{name}": _get("An empty list (AUTOMATIC1111).") for name in ABSENT},
        "/sdapi/v1/txt2img": _post(
            "Draw pictures (AUTOMATIC1111).",
            {
                "prompt": TEXT,
                "negative_prompt": TEXT,
                "seed": WHOLE,
                "width": WHOLE,
                "height": WHOLE,
                "batch_size": WHOLE,
                "n_iter": WHOLE,
            },
            ["prompt"],
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlx-starflow", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if studio.options.api_key else [],
    }


ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _drawing(studio: Studio) -> Schema:
    limits = studio.limits
    return {
        "prompt": TEXT | {"maxLength": limits.prompt},
        "negative_prompt": TEXT,
        "n": _between(WHOLE, 1, limits.pictures),
        "seed": _between(WHOLE, *studio.facts["limits"]["seed"]),
        "guidance": _between(NUMBER, 0, 100),
        "sampler": TEXT | {"enum": studio.facts["samplers"]},
        "steps": WHOLE | {"description": "Most sweeps of a parallel sampler over a window."},
        "tolerance": _between(NUMBER, 0, 1),
        "best_of": _between(WHOLE, 1, limits.best_of),
        "size": TEXT | {"description": '"WxH" or "auto".'},
        "output_format": TEXT | {"enum": ["png", "jpeg", "webp"]},
        "output_compression": _between(WHOLE, 0, 100),
    }


def _between(kind: Schema, low: float, high: float) -> Schema:
    return {**kind, "minimum": low, "maximum": high}


def _operation(
    summary: str,
    media_type: str = "application/json",
    parameter: str | None = None,
    query: Schema | None = None,
    body: Schema | None = None,
) -> Schema:
    parameters = [{"name": parameter, "in": "path", "required": True, "schema": TEXT}]
    rows = parameters if parameter else []
    rows += [{"name": name, "in": "query", "schema": kind} for name, kind in (query or {}).items()]
    content: Schema = {media_type: {"schema": OBJECT} if "json" in media_type else {}}
    if body is not None:
        content[EVENTS] = {}
    found: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if rows:
        found["parameters"] = rows
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    return found


def _get(
    summary: str,
    media_type: str = "application/json",
    parameter: str | None = None,
    query: Schema | None = None,
) -> Schema:
    return {"get": _operation(summary, media_type, parameter, query)}


def _post(summary: str, fields: Schema, needed: list[str]) -> Schema:
    schema = {"type": "object", "properties": fields, "required": needed}
    return {"post": _operation(summary, body={"application/json": {"schema": schema}})}


def _form(summary: str, fields: Schema, needed: list[str]) -> Schema:
    schema = {"type": "object", "properties": fields, "required": needed}
    return {"post": _operation(summary, body={"multipart/form-data": {"schema": schema}})}
