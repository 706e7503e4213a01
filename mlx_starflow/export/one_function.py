"""Small flows: the whole picture, and the whole score, as one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from ..flow import Flow
from ..vae import Autoencoder
from .functions import Array, Function
from .mathematics import denoised, encoded, log_prob, sample
from .plan import Plan, own_context
from .weights import Narrow


def context_inputs(plan: Plan, guided: bool) -> tuple[Array, ...]:
    """The inputs that say what a picture shows: caption and, for guidance, null features, or
    labels."""
    flow = plan.flow
    if flow.text_channels:
        row = (flow.text_length, flow.text_channels)
        caption, null = Array("caption", (plan.batch, *row)), Array("null", (1, *row))
        return (caption, null) if guided and plan.has_null else (caption,)
    return (Array("labels", (plan.batch,), mx.int32),) if flow.num_classes else ()


def picture_functions(plan: Plan, flow: Flow, vae: Autoencoder | None) -> list[Function]:
    """Noise and what to draw -> the picture (B, H, W, C) in about [-1, 1], and the sample before
    denoising (B, h, w, c)."""
    narrow = Narrow(modules_of(flow, vae))

    def picture(noise: mx.array, **given: mx.array) -> list[mx.array]:
        with narrow.widened():
            latent = sample(flow, plan, noise, **given)
            clean = denoised(flow, plan, latent, own_context(flow, **given))
            return [decoded(vae, clean), latent]

    inputs = (Array("noise", plan.shape), *context_inputs(plan, True))
    return [Function("picture", inputs, ("picture", "latent"), picture)]


def score_functions(plan: Plan, flow: Flow) -> list[Function]:
    """A latent -> its likelihood in nats (B,) and its noise; without and with guidance."""
    narrow = Narrow([flow])

    def score(latent: mx.array, **given: mx.array) -> list[mx.array]:
        with narrow.widened():
            return list(log_prob(flow, latent, own_context(flow, **given)))

    def encode(latent: mx.array, **given: mx.array) -> list[mx.array]:
        with narrow.widened():
            return [encoded(flow, plan, latent, **given)]

    latent = Array("latent", plan.shape)
    inputs = (latent, *context_inputs(plan, False))
    return [
        Function("score", inputs, ("log_prob", "noise"), score),
        Function("encode", (latent, *context_inputs(plan, True)), ("noise",), encode),
    ]


def latent_functions(plan: Plan, vae: Autoencoder | None) -> list[Function]:
    """A picture's latent, without noise."""
    if vae is None:
        return []
    narrow = Narrow(modules_of(vae))

    def latent(picture: mx.array) -> list[mx.array]:
        with narrow.widened():
            return [vae.encode(picture)]

    size = (plan.batch, plan.settings.height, plan.settings.width, 3)
    return [Function("latent", (Array("picture", size),), ("latent",), latent)]


def decoded(vae: Autoencoder | None, latent: mx.array) -> mx.array:
    """Latents (B, h, w, c) -> pictures (B, H, W, C) in about [-1, 1], one after another."""
    if vae is None:
        return latent
    each: Callable[[mx.array], mx.array] = vae.decode
    return mx.concatenate([each(latent[i : i + 1]) for i in range(latent.shape[0])])


def modules_of(*parts: object) -> Sequence[nn.Module]:
    return [part for part in parts if isinstance(part, nn.Module)]
