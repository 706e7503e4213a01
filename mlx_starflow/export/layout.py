"""From noise to tokens and back, for hosts with a loop over tokens."""

from __future__ import annotations

import mlx.core as mx

from ..flow import Flow
from ..flow.grid import patchify, unpatchify
from .functions import Array, Function
from .mathematics import denoised, to_tokens
from .one_function import context_inputs
from .plan import Plan, own_context


def layout_functions(plan: Plan, flow: Flow) -> list[Function]:
    """``layout.tokens`` scales noise to the model's prior, ``layout.raw_tokens`` does not."""
    tokens = Array("tokens", (plan.batch, plan.grid.tokens, plan.flow.token_channels))
    noise, latent = Array("noise", plan.shape), Array("latent", plan.shape)

    def back(tokens: mx.array) -> list[mx.array]:
        return [unpatchify(tokens, plan.grid, flow.config)]

    return [
        Function("layout.tokens", (noise,), ("tokens",), lambda noise: [to_tokens(flow, noise)]),
        Function(
            "layout.raw_tokens",
            (latent,),
            ("tokens",),
            lambda latent: [patchify(latent, flow.config)],
        ),
        Function("layout.latent", (tokens,), ("latent",), back),
    ]


def learned_denoiser(plan: Plan, flow: Flow) -> list[Function]:
    """The denoiser network of some models, as one function."""
    if not plan.settings.denoise or plan.settings.denoiser != "learned":
        return []

    def denoise(latent: mx.array, **given: mx.array) -> list[mx.array]:
        return [denoised(flow, plan, latent, own_context(flow, **given))]

    inputs = (Array("latent", plan.shape), *context_inputs(plan, False))
    return [Function("denoise", inputs, ("latent",), denoise)]
