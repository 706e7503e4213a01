"""The matrices of a flow that an adapter changes, and their names in the adapter's file.

A key names a matrix of every layer ("attention.qkv", "mlp.up", ...) or an input or output
projection of every block ("proj_in", "proj_txt", "proj_out"). Queries, keys and values are one
matrix: "attention.qkv" adapts it as a whole; "attention.q", "attention.k" and "attention.v" adapt
its parts separately.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import BlockConfig, FlowConfig
from ..errors import UsageError
from ..files.fields import shown

QKV = "attention.qkv"
PARTS = ("attention.q", "attention.k", "attention.v")
LAYER_KEYS = (QKV, *PARTS, "attention.proj", "mlp.gate", "mlp.up", "mlp.down")
END_KEYS = ("proj_in", "proj_txt", "proj_out")
KEYS = (*LAYER_KEYS, *END_KEYS)
DEFAULT_KEYS = (QKV, "attention.proj", "mlp.gate", "mlp.up", "mlp.down")
MAX_RANK = 4096


@dataclass(frozen=True)
class Target:
    """A matrix that an adapter changes, or a part of its rows (outputs)."""

    name: str  # in the adapter's file: "blocks.2.layers.0.attention.q"
    layer: str  # path of the linear layer in the flow
    inputs: int
    outputs: int
    first: int  # index of the first changed output of the layer
    whole: int  # number of outputs of the layer


def targets(
    config: FlowConfig, keys: tuple[str, ...] = DEFAULT_KEYS, num_layers: int = -1
) -> tuple[Target, ...]:
    """The matrices that ``keys`` name in the last ``num_layers`` layers, in the order from data to
    noise (-1: in all layers). The projections of a block are included if all of its layers are.

    Errors: UsageError for an unknown key, if both attention.qkv and its parts are given, and if
    no matrix is named.
    """
    for key in keys:
        if key not in KEYS:
            raise UsageError(f"lora keys: {shown(key)} is unknown; expected {', '.join(KEYS)}.")
    if QKV in keys and set(keys) & set(PARTS):
        raise UsageError(f"lora keys: give {QKV} or its parts {', '.join(PARTS)}, not both.")
    if num_layers < -1 or num_layers == 0:
        raise UsageError(f"num_layers is {num_layers}; expected 1 or more, or -1 for all.")
    layers = sum(block.layers for block in config.blocks)
    skipped = 0 if num_layers == -1 else max(0, layers - num_layers)
    found: list[Target] = []
    for i, block in enumerate(config.blocks):
        if not block.layers:
            continue
        if not skipped:
            found += _ends(f"blocks.{i}", block, config, keys)
        for j in range(block.layers):
            if skipped:
                skipped -= 1
                continue
            found += _layer(f"blocks.{i}.layers.{j}", block, keys)
    if not found:
        raise UsageError(
            f"lora keys: this model has no matrix named {', '.join(keys)}; its layers have "
            f"{', '.join(_shapes(next(b for b in config.blocks if b.layers)))}."
        )
    return tuple(found)


def _shapes(block: BlockConfig) -> dict[str, tuple[int, int]]:
    """The sizes (inputs, outputs) of a layer's matrices."""
    inner, kv = block.heads * block.head_dim, block.kv_heads * block.head_dim
    shapes = {
        QKV: (block.channels, inner + 2 * kv),
        "attention.proj": (inner, block.channels),
        "mlp.up": (block.channels, block.mlp_channels),
        "mlp.down": (block.mlp_channels, block.channels),
    }
    return shapes | ({"mlp.gate": shapes["mlp.up"]} if block.gated_mlp else {})


def _layer(path: str, block: BlockConfig, keys: tuple[str, ...]) -> list[Target]:
    inner, kv = block.heads * block.head_dim, block.kv_heads * block.head_dim
    shapes, found = _shapes(block), []
    places = dict(zip(PARTS, ((0, inner), (inner, kv), (inner + kv, kv)), strict=True))
    for key in LAYER_KEYS:
        if key not in keys:
            continue
        if key in places:
            first, outputs = places[key]
            inputs, whole = shapes[QKV]
            found.append(Target(f"{path}.{key}", f"{path}.{QKV}", inputs, outputs, first, whole))
        elif key in shapes:
            inputs, outputs = shapes[key]
            found.append(Target(f"{path}.{key}", f"{path}.{key}", inputs, outputs, 0, outputs))
    return found


def _ends(path: str, block: BlockConfig, config: FlowConfig, keys: tuple[str, ...]) -> list[Target]:
    tokens = config.token_channels
    shapes = {
        "proj_in": (tokens, block.channels),
        "proj_out": (block.channels, tokens if config.scale == "unit" else 2 * tokens),
    }
    if block.conditioned and block.project_text and config.text_channels:
        shapes["proj_txt"] = (config.text_channels, block.channels)
    return [
        Target(f"{path}.{key}", f"{path}.{key}", *shapes[key], 0, shapes[key][1])
        for key in END_KEYS
        if key in keys and key in shapes
    ]
