"""A test vector: noise and what the model makes of it, with which a host checks itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from ..exact.denoise import denoise
from ..exact.likelihood import log_prob
from ..exact.noise import seeded_noise
from ..flow import Block, Context
from ..generation.components import Components
from ..generation.draw import decode
from ..sampling import invert
from ..sampling.conditional import Conditional
from .mathematics import to_tokens
from .plan import MOST_UNROLLED, Plan
from .text import encoder_of

FILE = "test.safetensors"
PROMPT = "a fox in snow"
TOKENS = 4  # tokens of the deep block, where a whole picture would take too long


def write_vector(components: Components, plan: Plan, directory: Path) -> dict[str, Any]:
    """Write the file. Returns its entry in export.json."""
    prompt, given = _context(components, plan)
    arrays = dict(given)
    if plan.what == "text":
        arrays.pop("null", None)
    else:
        noise = seeded_noise(plan.shape[1:], range(plan.batch))
        arrays |= {"noise": noise, **_expected(components, plan, noise, given)}
    mx.save_safetensors(str(directory / FILE), arrays)
    return {"file": FILE, "prompt": prompt, "arrays": sorted(arrays)}


def _context(components: Components, plan: Plan) -> tuple[str, dict[str, mx.array]]:
    """A prompt, and what functions take for it."""
    if encoder := encoder_of(components):
        labels = encoder.config.labels
        prompt = (labels[0] if labels else "0") if encoder.config.encoder == "labels" else PROMPT
        rows = encoder.encode([prompt, ""], plan.settings.aspect_ratio).features
        caption = mx.repeat(rows[:1], plan.batch, axis=0)
        return prompt, {"caption": caption, "null": rows[1:]}
    if plan.has_text:  # features are the host's: the model's text encoder is somewhere else
        row = (plan.flow.text_length, plan.flow.text_channels)
        caption, null = (mx.random.normal((n, *row), key=mx.random.key(n)) for n in (plan.batch, 1))
        return "", {"caption": caption, "null": null}
    if plan.flow.num_classes:
        return "0", {"labels": mx.zeros((plan.batch,), dtype=mx.int32)}
    return "", {}


def _expected(
    components: Components, plan: Plan, noise: mx.array, given: dict[str, mx.array]
) -> dict[str, mx.array]:
    flow, own = components.flow, given.get("labels", given.get("caption"))
    if plan.what == "score":
        return {"log_prob": log_prob(flow, noise, own)}
    layers = sum(block.layers for block in plan.flow.blocks)
    if layers * plan.grid.tokens > MOST_UNROLLED:
        return {"tokens": _first_tokens(components, plan, noise, given)}
    context: Context = own
    if plan.has_null:
        null = mx.repeat(given["null"], plan.batch, axis=0)
        context = mx.concatenate([given["caption"], null])
    options = plan.options.to_dict() | {"certify": False}
    latent = invert(flow, noise, context, **options)
    clean = latent
    if plan.settings.denoise:
        clean = denoise(flow, latent, own, plan.settings.noise_std, plan.settings.denoiser)
    return {"latent": latent, "picture": decode(components, clean)}


def _first_tokens(
    components: Components, plan: Plan, noise: mx.array, given: dict[str, mx.array]
) -> mx.array:
    """The first tokens (B, n, D) of the deepest block that has layers, in its order."""
    flow = components.flow
    index = max(i for i, block in enumerate(flow.blocks) if isinstance(block, Block))
    block = flow.blocks[index]
    if not isinstance(block, Block):  # cannot be: the index was chosen so
        return noise
    v = flow.order(index, plan.grid).into(to_tokens(flow, noise))
    options, context = plan.options.in_block(index, len(flow.blocks)), given.get("labels")
    if plan.has_text:
        context = given["caption"]
        if plan.has_null:
            context = mx.concatenate([context, mx.repeat(given["null"], plan.batch, axis=0)])
    conditional = Conditional(block, plan.grid, context, plan.batch, options)
    conditional.compiled = None  # the arithmetic of the exported step, which is not compiled
    previous, done = mx.zeros_like(v[:, :1]), []
    for t in range(min(TOKENS, v.shape[1])):
        sigma, b = conditional.affine(previous, t)
        previous = sigma * v[:, t : t + 1] + b
        mx.eval(previous)
        done.append(previous)
    return mx.concatenate(done, axis=1)
