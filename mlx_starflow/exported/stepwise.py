"""The loops of a step-wise export: over blocks, tokens and layers, and over tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from ..vae.tiling import blended
from .calls import Calls

Given = dict[str, mx.array]


def sample(
    calls: Calls, data: dict[str, Any], noise: mx.array, context: Given
) -> tuple[mx.array, float]:
    """Noise (B, h, w, c) -> sample of the same shape, before denoising; and the largest residual of
    a block."""
    (u,), worst = calls("layout.tokens", {"noise": noise}), 0.0
    for block in data["sampling"]["blocks"]:
        v = turned(u, block)
        found = mx.concatenate(list(block_tokens(calls, block, v, context)), axis=1)
        worst = max(worst, residual(calls, block, found, v, context))
        u = turned(found, block)
    return calls("layout.latent", {"tokens": u})[0], worst


def turned(tokens: mx.array, block: dict[str, Any]) -> mx.array:
    """(B, T, D) from raster order into the block's order, or back."""
    return tokens[:, ::-1] if block["flip"] else tokens


def block_tokens(
    calls: Calls, block: dict[str, Any], v: mx.array, context: Given
) -> Iterator[mx.array]:
    """The tokens (B, 1, D) of one block one after another, from noise v (B, T, D) in its order."""
    name, layers, cache = f"block{block['block']}", range(block["layers"]), block["cache"]
    if block["begin"]:
        made = calls(f"{name}.begin", context)
        kept = deque((made[2 * j], made[2 * j + 1]) for j in layers)
    else:
        nothing = mx.zeros(cache["shape"], getattr(mx, cache["dtype"]))
        kept = deque((nothing, nothing) for _ in layers)
    previous = mx.zeros_like(v[:, :1])
    for t in range(v.shape[1]):
        number = mx.array(t)
        given = {**context, "previous": previous, "t": number}
        (hidden,) = calls(f"{name}.step.start", given)
        for j in layers:
            keys, values = kept.popleft()
            given = {"hidden": hidden, "t": number, "keys": keys, "values": values}
            hidden, *written = calls(f"{name}.step.layer{j}", given)
            kept.append((written[0], written[1]))
        del given, keys, values, written  # else the next step could not write in place
        sigma, b = calls(f"{name}.step.finish", {"hidden": hidden, "t": number})
        previous = sigma * v[:, t : t + 1] + b
        mx.eval(previous, list(kept))
        yield previous


def residual(
    calls: Calls, block: dict[str, Any], u: mx.array, v: mx.array, context: Given
) -> float:
    """max |sigma v + b - u| of a parallel pass over a block's tokens u (B, T, D), in its order:
    how exact they are."""
    hidden = _through(calls, block, "certificate", {**context, "tokens": u})[-1]
    sigma, b = calls(f"block{block['block']}.certificate.finish", {"hidden": hidden})
    return mx.abs(sigma * v + b - u).max().item()  # type: ignore[return-value]


def _through(calls: Calls, block: dict[str, Any], what: str, given: Given) -> list[mx.array]:
    """The residual stream before every layer, and after the last."""
    name = f"block{block['block']}.{what}"
    hidden = list(calls(f"{name}.start", given))
    for j in range(block["layers"]):
        hidden += calls(f"{name}.layer{j}", {"hidden": hidden[-1]})
        mx.eval(hidden[-1])
    return hidden


def denoised(calls: Calls, data: dict[str, Any], latent: mx.array, context: Given) -> mx.array:
    """The sample (B, h, w, c) without the noise of training."""
    settings = data["denoising"]
    if settings["method"] is None:
        return latent
    if settings["method"] == "learned":
        return calls("denoise", {**context, "latent": latent})[0]
    own = {name: rows for name, rows in context.items() if name != "null"}
    (u,) = calls("layout.raw_tokens", {"latent": latent})
    passed = []
    for block in reversed(data["sampling"]["blocks"]):
        u = turned(u, block)
        hidden = _through(calls, block, "forward", {**own, "tokens": u})
        passed.append((block, u, hidden))
        given = {"hidden": hidden[-1], "tokens": u}
        (v,) = calls(f"block{block['block']}.forward.finish", given)
        mx.eval(v)
        u = turned(v, block)
    slope = -u  # of the logarithm of the prior
    while passed:
        slope = _backward(calls, *passed.pop(), slope, own)
    (raw,) = calls("layout.latent", {"tokens": slope})
    return latent + settings["noise_std"] ** 2 * raw


def _backward(
    calls: Calls,
    block: dict[str, Any],
    u: mx.array,
    hidden: list[mx.array],
    slope: mx.array,
    context: Given,
) -> mx.array:
    name = f"block{block['block']}.backward"
    given = {"hidden": hidden.pop(), "tokens": u, "slope": turned(slope, block)}
    inner, direct = calls(f"{name}.finish", given)
    for j in reversed(range(block["layers"])):
        (inner,) = calls(f"{name}.layer{j}", {"hidden": hidden.pop(), "slope": inner})
        mx.eval(inner, direct)
    given = {**context, "tokens": u, "slope": inner, "direct": direct}
    (slope,) = calls(f"{name}.start", given)
    mx.eval(slope)
    return turned(slope, block)


def decoded(calls: Calls, data: dict[str, Any], latent: mx.array) -> mx.array:
    """A denoised latent (B, h, w, c) -> pictures (B, H, W, C) in about [-1, 1]."""
    settings = data["decoder"]
    if settings["kind"] == "pixels":
        return latent
    if settings["kind"] == "whole":
        return calls("decode", {"latent": latent})[0]
    pictures = []
    for i in range(latent.shape[0]):
        (cells,) = calls("decode.middle", {"latent": latent[i : i + 1]})
        pictures.append(
            blended(
                cells,
                lambda part: calls("decode.upper", {"cells": part})[0],
                settings["factor"],
                tuple(settings["tile"]),
                settings["rows"],
                settings["columns"],
            )
        )
    return mx.concatenate(pictures)
