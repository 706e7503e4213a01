"""Denoising of samples: a flow that was trained on noisy data draws noisy samples."""

from __future__ import annotations

import mlx.core as mx

from ..device.pieces import LARGEST
from ..device.wired import wired
from ..errors import UsageError
from ..flow import Block, Context, Flow, layer_operations
from .layerwise import score_by_layers
from .likelihood import normal_log_prob

METHODS = ("score", "learned")
CHECKPOINT_BYTES = 1 << 30  # stored activations above this are recomputed instead


@wired()
def denoise(
    flow: Flow,
    x: mx.array,
    context: Context = None,
    noise_std: float | None = None,
    method: str | None = None,
) -> mx.array:
    """Denoise a sample x (B, H, W, C), given its context (B rows, without null captions).

    method "score": x + noise_std^2 grad log p(x | context), Tweedie's formula with the exact score
    of the flow. "learned": the denoiser network that some checkpoints have. None: "learned" if the
    model has one, else "score". noise_std: None for the model's value; only with "score". Returns
    (B, H, W, C) float32. Errors: UsageError.
    """
    learned = "denoiser" in flow
    if method is None:
        method = "learned" if learned else "score"
    if method not in METHODS:
        raise UsageError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    x = x.astype(mx.float32)
    context = flow.check_context(context, x.shape[0])
    if method == "learned":
        if not learned:
            raise UsageError("This model has no learned denoiser; use method='score'.")
        if noise_std is not None:
            raise UsageError("A learned denoiser has its own noise level; leave noise_std out.")
        return flow.denoiser(x, context)
    std = flow.config.noise_std if noise_std is None else noise_std
    if not std >= 0:
        raise UsageError(f"noise_std is {std}; expected 0 or more.")
    return x + std**2 * score(flow, x, context)


@wired()
def score(
    flow: Flow, x: mx.array, context: Context = None, checkpoint: bool | None = None
) -> mx.array:
    """The score grad_x log p(x | context) of x (B, H, W, C), of the same shape.

    ``checkpoint`` True: one picture after another, layer by layer, with activations recomputed
    instead of stored. False: all in one evaluation. None: True if the activations would take more
    than ``CHECKPOINT_BYTES`` or one evaluation would take too long.
    """
    rows = x.shape[0]
    if checkpoint is None:
        checkpoint = (
            activation_bytes(flow, x.shape, context) > CHECKPOINT_BYTES
            or 3 * operations(flow, x.shape, context) > LARGEST
        )
    if checkpoint:
        own = [None if context is None else context[i : i + 1] for i in range(rows)]
        return mx.concatenate([score_by_layers(flow, x[i : i + 1], own[i]) for i in range(rows)])
    gradient = mx.grad(lambda y: _log_prob(flow, y, context))(x)
    mx.eval(gradient)
    return gradient


def _log_prob(flow: Flow, x: mx.array, context: Context) -> mx.array:
    pictures, log_scales = zip(*flow.blockwise(x, context), strict=True)
    logdet = sum((s.sum() for s in log_scales if s is not None), mx.array(0.0))
    return logdet + normal_log_prob(pictures[-1]).sum()


def operations(flow: Flow, shape: tuple[int, ...], context: Context) -> float:
    """Floating-point operations of one parallel pass through all blocks."""
    tokens = shape[1] * shape[2] // flow.config.patch_size**2
    text = 0 if context is None or context.ndim < 3 else context.shape[1]
    return sum(
        block.layers * layer_operations(block, shape[0], tokens + text * block.conditioned)
        for block in flow.config.blocks
    )


def activation_bytes(flow: Flow, shape: tuple[int, ...], context: Context) -> int:
    """An estimate of the bytes of activations that the backward pass stores for x of this shape
    (B, H, W, C)."""
    tokens = shape[1] * shape[2] // flow.config.patch_size**2
    text = 0 if context is None or context.ndim < 3 else context.shape[1]
    total = 0
    for block, config in zip(flow.blocks, flow.config.blocks, strict=True):
        if isinstance(block, Block):
            length = tokens + (text if config.conditioned else 0)
            hidden = 8 * config.channels + 3 * config.mlp_channels
            total += config.layers * length * (hidden + 2 * config.heads * length)
    return total * shape[0] * 4
