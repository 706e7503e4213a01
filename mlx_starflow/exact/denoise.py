"""Denoising of samples: a flow that was trained on noisy data draws noisy samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx

from ..config import BlockConfig
from ..device.pieces import LARGEST
from ..device.wired import wired
from ..errors import UsageError
from ..flow import Context, Flow, layer_operations
from ..flow.grid import Grid
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
    window: int | None = None,
) -> mx.array:
    """Denoise a sample x (B, H, W, C), or a clip (B, N, H, W, C), given its context (B rows,
    without null captions).

    method "score": x + noise_std^2 grad log p(x | context), Tweedie's formula with the exact score
    of the flow. "learned": the denoiser network that some checkpoints have. None: "learned" if the
    model has one, else "score". noise_std: None for the model's value; only with "score". window:
    latent frames of a clip that are denoised at a time, in overlapping pieces; None: all at once.
    Returns float32 of the shape of x. Errors: UsageError.
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
        return in_pieces(flow, x, window, lambda piece: flow.denoiser(piece, context))
    std = flow.config.noise_std if noise_std is None else noise_std
    if not std >= 0:
        raise UsageError(f"noise_std is {std}; expected 0 or more.")
    return in_pieces(flow, x, window, lambda piece: piece + std**2 * score(flow, piece, context))


def in_pieces(
    flow: Flow, x: mx.array, window: int | None, work: Callable[[mx.array], mx.array]
) -> mx.array:
    """``work`` on pieces of ``window`` frames of a clip (B, N, H, W, C).

    A piece begins with frames of the one before it, already denoised, as context: as many as the
    model's denoiser_window, or all but the last where it has none. They keep their value.
    Errors: UsageError where a piece would hold nothing but context.
    """
    if window is None or x.ndim != 5 or x.shape[1] <= window:
        if window is not None and x.ndim != 5:
            raise UsageError("window is for clips (B, N, H, W, C); this is a picture.")
        return work(x)
    if window < 1:
        raise UsageError(f"window is {window}; expected 1 latent frame or more.")
    context = flow.config.denoiser_window
    context = window - 1 if context is None else context
    if context >= window:
        raise UsageError(
            f"window is {window} latent frames, of which {context} (the model's denoiser_window) "
            f"are context: nothing would be denoised. Give {context + 1} or more, or none."
        )
    done, frames = work(x[:, :window]), x.shape[1]
    while done.shape[1] < frames:
        mx.eval(done)
        known = done[:, done.shape[1] - context :]
        piece = mx.concatenate([known, x[:, done.shape[1] : done.shape[1] + window - context]], 1)
        done = mx.concatenate([done, work(piece)[:, context:]], axis=1)
    return done


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
    return sum(
        block.layers * layer_operations(block, rows, places)
        for block, rows, places in _sequences(flow, shape, context)
    )


def activation_bytes(flow: Flow, shape: tuple[int, ...], context: Context) -> int:
    """An estimate of the bytes of activations that the backward pass stores for x of this shape
    (B, H, W, C) or (B, N, H, W, C)."""
    total = 0
    for block, rows, places in _sequences(flow, shape, context):
        hidden = 8 * block.channels + 3 * block.mlp_channels
        total += block.layers * rows * places * (hidden + 2 * block.heads * places)
    return total * 4


def _sequences(
    flow: Flow, shape: tuple[int, ...], context: Context
) -> Iterator[tuple[BlockConfig, int, int]]:
    """Every block with the rows and places of the sequences that it reads data of a shape in."""
    patch = flow.config.patch_size
    frames = shape[1] if len(shape) == 5 else None
    grid = Grid(shape[-3] // patch, shape[-2] // patch, frames)
    text = 0 if context is None or context.ndim < 3 else context.shape[1]
    for index, block in enumerate(flow.config.blocks):
        order = flow.order(index, grid)
        places = order.grid.tokens + text * block.conditioned
        yield block, shape[0] * order.sequences, places
