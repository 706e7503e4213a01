"""The most arithmetic in one evaluation (``mx.eval``), for every kind of work of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import FlowConfig, VAEConfig
from ..device.pieces import LARGEST
from ..flow import layer_operations


@dataclass(frozen=True)
class Evaluation:
    """The floating-point operations of one kind of work."""

    work: str
    whole: float  # for one guided picture
    largest: float  # of one evaluation


def evaluations(
    flow: FlowConfig, vae: VAEConfig | None, text_parameters: float
) -> list[Evaluation]:
    """The evaluations for one guided picture on the grid that the flow was trained on.

    ``text_parameters``: number of parameters of the text encoder, which reads
    ``flow.text_length`` tokens.
    """
    tokens = flow.grid_size**2
    rows, single, steps = [], [], []
    for block in flow.blocks:
        length = tokens + (flow.text_length if block.conditioned else 0)
        batch = 2 if block.conditioned else 1
        rows.append([layer_operations(block, batch, length)] * block.layers)
        single += [layer_operations(block, 1, length)] * block.layers
        steps.append(block.layers * layer_operations(block, batch, 1))
    table = [
        Evaluation("a token", max(steps), max(steps)),
        Evaluation("a window of 64", 64 * max(steps), _piece(64 * max(steps) / 24, 24)),
        Evaluation("certificate", sum(map(sum, rows)), max(map(_largest, rows))),
        # The forward pass, and then every layer again with its gradient.
        Evaluation("denoising", 3 * sum(single), 2 * max(single)),
    ]
    text = 2 * text_parameters * flow.text_length
    table.append(Evaluation("text encoder", text, _piece(text / 24, 24)))
    if vae is not None:
        table += _decoding(vae, flow)
    return table


def _largest(layers: list[float]) -> float:
    """The most operations in one evaluation, with the pieces of ``device.pieces``."""
    waiting = largest = 0.0
    for work in layers:
        if waiting + work > LARGEST:
            waiting = 0.0
        waiting += work
        largest = max(largest, waiting)
        if waiting + work > LARGEST:
            waiting = 0.0
    return largest


def _piece(work: float, count: int) -> float:
    return _largest([work] * count)


def _decoding(vae: VAEConfig, flow: FlowConfig) -> list[Evaluation]:
    side, parts = flow.grid_size * flow.patch_size, []
    widths = vae.block_out_channels[::-1]
    for level, width in enumerate(widths):
        pixels, before = (side * 2**level) ** 2, widths[max(level - 1, 0)]
        for layer in range(vae.layers_per_block + 1):
            first = before if layer == 0 else width
            shortcut = first * width if first != width else 0
            parts.append(2.0 * pixels * (9 * (first * width + width * width) + shortcut))
        if level + 1 < len(widths):
            parts.append(2.0 * 4 * pixels * 9 * width * width)
    return [Evaluation("VAE", sum(parts), _largest(parts))]
