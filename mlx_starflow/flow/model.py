"""The flow: a stack of autoregressive affine blocks between data and noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FlowConfig
from ..device.shared import Share
from ..device.typed import scalar
from ..errors import UsageError
from .block import Block, Network
from .bounds import largest_product
from .denoiser import Denoiser
from .grid import Grid, grid_of, patchify, unpatchify
from .order import Order, order_of

Context = mx.array | None


class Identity(nn.Module):
    """A block without layers: returns its input and has no weights."""


class Flow(nn.Module):
    """STARFlow (arXiv 2506.06276) or TarFlow (arXiv 2412.06329).

    ``flow(x, context)`` maps data to noise; ``mlx_starflow.invert`` maps noise to data.
    """

    def __init__(self, config: FlowConfig):
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = config
        self.blocks: list[Block | Identity] = [
            Block(b, config) if b.layers else Identity()  # type: ignore[no-untyped-call]
            for b in config.blocks
        ]
        if config.denoiser is not None:
            self.denoiser = Denoiser(config.denoiser, config)
        if config.model_type == "tarflow":
            tokens = config.grid_size * config.grid_size
            self.prior_var = mx.ones((tokens, config.token_channels))

    def __call__(self, x: mx.array, context: Context = None) -> tuple[mx.array, mx.array]:
        """Data to noise.

        x (B, H, W, C): latent or image, channels last; a model of clips takes clips
        (B, N, H, W, C) of N latent frames too. context: text features (B, L, D) of a
        STARFlow; int labels (B,), -1 for none, or None, of a TarFlow. Returns z of the shape of
        x and logdet (B,) = log |det dz/dx| in natural units, both float32.
        """
        pictures, log_scales = zip(*self.blockwise(x, context), strict=True)
        logdet = mx.zeros((x.shape[0],))
        for log_scale in log_scales:
            if log_scale is not None:
                logdet = logdet + log_scale.sum(axis=(1, 2))
        return pictures[-1], logdet

    def blockwise(
        self, x: mx.array, context: Context = None, checkpoint: bool = False
    ) -> Iterator[tuple[mx.array, mx.array | None]]:
        """Data to noise, block by block. Yields, after block 0, 1, ..., the picture or clip so far
        (of the shape of x) and the log-determinant per number (B, T, D) in the block's token order,
        None for an identity block. The last picture is z. ``checkpoint``: see
        ``Block.parameters_of``."""
        grid = grid_of(x, self.config)
        context = self.check_context(context, x.shape[0])
        u = patchify(x.astype(mx.float32), self.config)
        for index in range(len(self.blocks)):
            u, log_scale = self.through_block(index, u, grid, context, checkpoint)
            yield unpatchify(u, grid, self.config), log_scale

    def through_block(
        self, index: int, u: mx.array, grid: Grid, context: Context, checkpoint: bool = False
    ) -> tuple[mx.array, mx.array | None]:
        """Tokens u (B, T, D) in raster order through one block, from data to noise. Returns the
        tokens after it, in raster order, and the log-determinant per number (B, T, D) in the
        block's token order, None for an identity block. ``context``: as returned by
        ``check_context``."""
        block, order = self.blocks[index], self.order(index, grid)
        if not isinstance(block, Block):
            return u, None
        u = order.into(u)
        a, b = block.parameters_of(u, order.grid, context, checkpoint)
        v = (u - b) / block.sigma(a)
        return order.back(v), order.unfold(-block.log_sigma(a))

    def order(self, index: int, grid: Grid) -> Order:
        """How block ``index`` reads the tokens of a grid."""
        return order_of(self.config.blocks[index], self.config, grid)

    def check_context(self, context: Context, batch: int) -> Context:
        """The context, labels converted to int32. Errors: UsageError if it does not fit the model
        or the batch size."""
        config = self.config
        if config.text_channels:
            if context is None:
                raise UsageError(
                    f"This model needs text features (B, L, {config.text_channels}) as context."
                )
            if context.ndim != 3 or context.shape[2] != config.text_channels:
                raise UsageError(
                    f"The context has shape {tuple(context.shape)}; this model takes text "
                    f"features (B, L, {config.text_channels})."
                )
        elif context is not None:
            if not config.num_classes:
                raise UsageError("This model is unconditional: it takes no context.")
            if context.ndim != 1:
                raise UsageError(
                    f"The context has shape {tuple(context.shape)}; this model takes int labels "
                    f"(B,), from 0 to {config.num_classes - 1}, or -1 for none."
                )
            context = context.astype(mx.int32)
            low, high = scalar(context.min()), scalar(context.max())
            if low < -1 or high >= config.num_classes:
                raise UsageError(
                    f"Labels go from 0 to {config.num_classes - 1} (-1 for none); found "
                    f"{low if low < -1 else high}."
                )
        if context is not None and context.shape[0] != batch:
            raise UsageError(
                f"The context has {context.shape[0]} rows for a batch of {batch} pictures."
            )
        return context

    def largest_product(self) -> float:
        """An upper bound on the inputs and outputs of all products in the dtype of the weights,
        for every input. If it is below 65504, float16 suffices."""
        parts: list[Network] = [b for b in self.blocks if isinstance(b, Block)]
        parts += [self.denoiser] if "denoiser" in self else []
        bounds = [largest_product(layer) for part in parts for layer in part.layers]
        text = [p.proj_txt for p in parts if "proj_txt" in p]
        # Text features have a standard deviation of about 1; values up to 100 are assumed.
        bounds += [100.0 * scalar(mx.abs(t.weight).sum(axis=1).max()) for t in text
                   if "scales" not in t]  # fmt: skip
        return max(bounds, default=0.0)

    def shard(self, group: Any) -> None:
        """Keep this rank's share of the layers, for a group of ``mx.distributed``: attention by
        heads, MLPs by hidden numbers. All calls are then made by all ranks together. Errors:
        UsageError naming what does not divide; the flow is then as it was."""
        from .shards import shard_flow

        shard_flow(self, Share.of(group))

    def training_grid(self) -> Grid:
        """The square token grid the model was trained on."""
        return Grid(self.config.grid_size, self.config.grid_size)
