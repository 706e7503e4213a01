"""What is exported: the model's parts, sizes, and the constants that the functions are traced
with."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..config import FlowConfig
from ..errors import UsageError
from ..flow import Context, Flow
from ..flow.grid import Grid
from ..generation.components import Components
from ..generation.settings import Settings, resolve
from ..sampling import SampleOptions
from ..sampling.conditional import Guidance

WHAT = ("picture", "steps", "score", "text")
# Layers times tokens of one function. The embedded model has 448, a graph of 2 MB; the released
# model would have 34,816.
MOST_UNROLLED = 8192


@dataclass(frozen=True)
class Plan:
    """The choices of one export."""

    what: str  # one of WHAT
    batch: int
    settings: Settings  # size, guidance, denoising
    flow: FlowConfig
    shape: tuple[int, int, int, int]  # (B, h, w, c) of the noise
    grid: Grid
    tile: int  # side of the tiles of the decoder in latent cells; 0: whole pictures

    @property
    def options(self) -> SampleOptions:
        """How noise is turned into data."""
        return self.settings.sample

    @property
    def noise_std(self) -> float:
        """The standard deviation with which a sample is denoised by its score."""
        given = self.settings.noise_std
        return self.flow.noise_std if given is None else given

    @property
    def has_text(self) -> bool:
        """Whether the flow is conditioned on text features."""
        return self.flow.text_channels > 0

    @property
    def has_null(self) -> bool:
        """Whether functions take the features of the null caption beside those of captions."""
        return self.has_text and self.options.guidance > 0

    def guide(self, index: int) -> Guidance:
        """How guidance combines the rows of block ``index``."""
        own = self.options.in_block(index, len(self.flow.blocks))
        guided = own.guidance > 0 and self.flow.blocks[index].conditioned
        return Guidance(guided, own.guidance, own.guide, own.annealed, self.grid.tokens)

    def context(
        self,
        index: int,
        caption: mx.array | None = None,
        null: mx.array | None = None,
        labels: mx.array | None = None,
    ) -> tuple[Context, mx.array | None]:
        """The distinct rows of the context of a block, and which of them each row of its batch
        uses; None where row i uses row i. caption (B, L, D), null (1, L, D), labels (B,)."""
        guided = self.guide(index).guided
        if labels is not None:
            nothing = mx.full((self.batch,), -1, dtype=mx.int32)
            return mx.concatenate([labels, nothing]) if guided else labels, None
        if caption is None or not self.flow.blocks[index].conditioned:
            return None, None
        if not guided or null is None:
            return caption, None
        rows = [*range(self.batch), *[self.batch] * self.batch]
        context = mx.concatenate([caption, null])
        return context, None if self.batch == 1 else mx.array(rows)

    def all_rows(self, index: int, **given: mx.array) -> Context:
        """The context of a block with one row per row of its batch."""
        context, rows = self.context(index, **given)
        return context if context is None or rows is None else mx.take(context, rows, axis=0)


def make_plan(
    components: Components,
    what: str | None,
    batch: int,
    aspect_ratio: str | None,
    guidance: float | None,
    denoise: bool | None,
    tile: int | None,
) -> Plan:
    """Check a request and fill in defaults. Errors: UsageError for what cannot be exported."""
    flow = components.flow_config
    if flow.frames > 1:
        raise UsageError("Exports are of models of pictures; this is a model of clips.")
    if not 1 <= batch <= 64:
        raise UsageError(f"batch is {batch}; expected a number from 1 to 64.")
    settings = resolve(
        components.config, flow, components.factor, "" if flow.text_channels else None, 0,
        aspect_ratio=aspect_ratio, denoise=denoise, guidance=guidance, sampler="sequential",
    )  # fmt: skip
    height, width = settings.height // components.factor, settings.width // components.factor
    grid = Grid(height // flow.patch_size, width // flow.patch_size)
    unrolled = grid.tokens * sum(block.layers for block in flow.blocks)
    if what is None:
        what = "picture" if unrolled <= MOST_UNROLLED else "steps"
    if what not in WHAT:
        raise UsageError(f"what is {what!r}; expected one of {', '.join(WHAT)}.")
    if what == "picture" and unrolled > MOST_UNROLLED:
        raise UsageError(
            f"The whole picture as one function would have {grid.tokens} tokens times "
            f"{unrolled // grid.tokens} layers; at most {MOST_UNROLLED} in all are written. Export "
            "steps instead (--what steps)."
        )
    if what == "text" and not (flow.text_channels and components.has("text_encoder")):
        raise UsageError("This model has no text encoder: there is nothing to export as text.")
    if tile is not None and not components.has("vae"):
        raise UsageError("tile is for models with an autoencoder; this one makes pixels.")
    if tile is not None and what != "steps":
        raise UsageError("Tiles need a loop in the host: they are for --what steps.")
    shape = (batch, height, width, flow.in_channels)
    return Plan(what, batch, settings, flow, shape, grid, tile or 0)


def own_context(flow: Flow, **given: mx.array) -> Context:
    """The context of a pass without guidance: caption (B, L, D), or labels (B,), or None."""
    if flow.config.text_channels:
        return given["caption"]
    return given.get("labels")
