"""A flow cut into shares for several ranks: attention by heads, MLPs by hidden numbers.

In the fused matrix of queries, keys and values every rank has the rows of its own heads. If there
are fewer heads of keys and values than ranks, a rank has the one that its queries use, which other
ranks have too. Everything outside of the layers is small and whole on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.nn as nn

from ..config import BlockConfig, FlowConfig
from ..device.shared import Cut, Range, Share, cut_layer, mark
from ..errors import UsageError
from .block import Network
from .layers import Layer
from .model import Flow


def layer_cuts(config: BlockConfig, share: Share) -> dict[str, Cut]:
    """How the linear layers of a layer are cut, by their paths in it. Errors: UsageError naming
    what does not divide."""
    size, heads = config.head_dim, config.heads
    own = share.range(heads, f"attention heads (of {config.channels} channels)")
    kv = _kv_heads(config, share)
    hidden = share.range(config.mlp_channels, "channels of an MLP")
    keys, values = heads, heads + config.kv_heads
    parts = [own, (keys + kv[0], keys + kv[1]), (values + kv[0], values + kv[1])]
    rows = (heads + 2 * config.kv_heads) * size
    cuts = {
        "attention.qkv": Cut("rows", tuple((a * size, b * size) for a, b in parts), rows),
        "attention.proj": Cut("columns", ((own[0] * size, own[1] * size),), heads * size),
        "mlp.up": Cut("rows", (hidden,), config.mlp_channels),
        "mlp.down": Cut("columns", (hidden,), config.mlp_channels),
    }
    if config.gated_mlp:
        cuts["mlp.gate"] = cuts["mlp.up"]
    return cuts


def _kv_heads(config: BlockConfig, share: Share) -> Range:
    """The heads of keys and values that a rank's queries use."""
    if config.kv_heads % share.size == 0:
        return share.range(config.kv_heads, "heads of keys and values")
    if share.size % config.kv_heads:
        raise UsageError(
            f"{config.kv_heads} heads of keys and values can neither be divided among nor repeated "
            f"on {share.size} ranks. Use a number of ranks that divides it or is a multiple of it."
        )
    own = share.rank * config.kv_heads // share.size
    return own, own + 1


def flow_cuts(config: FlowConfig, share: Share) -> dict[str, Cut]:
    """How the linear layers of a flow are cut, by their paths. Errors: UsageError."""
    cuts: dict[str, Cut] = {}
    parts = [(f"blocks.{i}", block) for i, block in enumerate(config.blocks) if block.layers]
    if config.denoiser is not None:
        parts.append(("denoiser", config.denoiser))
    for path, block in parts:
        own = layer_cuts(block, share)
        for i in range(block.layers):
            cuts |= {f"{path}.layers.{i}.{name}": cut for name, cut in own.items()}
    return cuts


def shard_flow(flow: Flow, share: Share) -> None:
    """Keep a rank's share of a flow that is in memory. Errors: UsageError; the flow is then as it
    was."""
    cuts = flow_cuts(flow.config, share)
    layers: dict[str, nn.Module] = dict(flow.named_modules())  # type: ignore[no-untyped-call]
    for path, cut in cuts.items():  # all of it must divide before anything is cut
        layer = layers[path]
        for leaf in ("weight", "scales", "biases", "bias"):
            if leaf in layer:
                cut.ranges(leaf, layer[leaf].shape, path)
    for path, cut in cuts.items():
        cut_layer(layers[path], cut, share, path)
    settle(flow, share)


def mark_flow(flow: Flow, share: Share) -> None:
    """Say of a flow that its arrays are a rank's share already."""
    layers: dict[str, nn.Module] = dict(flow.named_modules())  # type: ignore[no-untyped-call]
    for path, cut in flow_cuts(flow.config, share).items():
        mark(layers[path], cut, share)
    settle(flow, share)


def settle(flow: Flow, share: Share) -> None:
    """Set the numbers of heads of a flow that was cut."""
    for part in networks(flow):
        part.share = share
        kv = _kv_heads(part.config, share)
        for layer in part.layers:
            _settle_heads(layer, part.config.heads // share.size, kv[1] - kv[0], share)


def _settle_heads(layer: Layer, heads: int, kv_heads: int, share: Share) -> None:
    part = layer.attention
    part.heads, part.kv_heads = heads, kv_heads
    for name in ("query_norm", "key_norm"):
        if name in part:  # its gradient is the sum over the heads of all ranks
            mark(part[name], Cut("whole"), share)


def networks(flow: Flow) -> Iterator[Network]:
    """The blocks with layers, and the denoiser."""
    yield from (block for block in flow.blocks if isinstance(block, Network))
    if "denoiser" in flow:
        yield flow.denoiser
