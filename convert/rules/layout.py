"""The mapping from the tensors of a flow checkpoint to those of a bundle.

The mapping is computed from the configuration. Every key of a checkpoint must be in it or dropped
by a rule; other keys are errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from mlx_starflow.config import BlockConfig, FlowConfig
from mlx_starflow.errors import WeightsError

from ..read.tensor_file import FLOATS, SourceTensor


@dataclass(frozen=True)
class Target:
    """A tensor of the bundle."""

    name: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]  # in the checkpoint, with the same elements in the same order


Entry = tuple[str, Target]


def flow_layout(config: FlowConfig) -> dict[str, Target]:
    """Checkpoint name -> bundle tensor, for all tensors of a flow with this configuration."""
    layout: dict[str, Target] = {}
    for i, block in enumerate(config.blocks):
        if block.layers:
            layout.update(_block(f"blocks.{i}.", f"blocks.{i}.", block, config))
    if config.denoiser is not None:
        names = ("learnable_self_denoiser.", "denoiser.")
        layout.update(_network(*names, config.denoiser, config, config.token_channels))
    if config.model_type == "tarflow":
        shape = (config.grid_size**2, config.token_channels)
        layout["var"] = Target("prior_var", shape, shape)
    return layout


def _same(source: str, target: str, *shape: int) -> Entry:
    return source, Target(target, shape, shape)


def _block(source: str, target: str, block: BlockConfig, flow: FlowConfig) -> Iterator[Entry]:
    d, c = flow.token_channels, block.channels
    if flow.sos:
        yield source + "sos_embed", Target(target + "sos_embed", (d,), (1, 1, d))
    if block.position == "table":
        yield _same(source + "pos_embed", target + "pos_embed", flow.grid_size**2, c)
    if flow.num_classes:
        n = flow.num_classes
        yield source + "class_embed", Target(target + "class_embed", (n, c), (n, 1, c))
    yield from _network(source, target, block, flow, d if flow.scale == "unit" else 2 * d)


def _network(
    source: str, target: str, block: BlockConfig, flow: FlowConfig, outputs: int
) -> Iterator[Entry]:
    c = block.channels
    for name, rows, columns in (("proj_in", c, flow.token_channels), ("proj_out", outputs, c)):
        yield _same(f"{source}{name}.weight", f"{target}{name}.weight", rows, columns)
        yield _same(f"{source}{name}.bias", f"{target}{name}.bias", rows)
    if block.conditioned and block.project_text and flow.text_channels:
        shape = (c, flow.text_channels)
        weight = Target(target + "proj_txt.weight", shape, shape)
        yield source + "proj_txt.weight", weight
        yield _same(source + "proj_txt.bias", target + "proj_txt.bias", c)
    if block.final_norm:
        yield _same(source + "final_norm.weight", target + "final_norm.weight", c)
    for j in range(block.layers):
        yield from _layer(f"{source}attn_blocks.{j}.", f"{target}layers.{j}.", block)


def _layer(source: str, target: str, block: BlockConfig) -> Iterator[Entry]:
    c, h = block.channels, block.mlp_channels
    inner, kv = block.heads * block.head_dim, block.kv_heads * block.head_dim
    matrices = [
        ("attention.qkv", "attention.qkv", inner + 2 * kv, c),
        ("attention.proj", "attention.proj", c, inner),
    ]
    if block.gated_mlp:
        matrices += [
            ("mlp.gate_proj", "mlp.gate", h, c),
            ("mlp.up_proj", "mlp.up", h, c),
            ("mlp.down_proj", "mlp.down", c, h),
        ]
    else:
        matrices += [("mlp.main.0", "mlp.up", h, c), ("mlp.main.2", "mlp.down", c, h)]
    for old, new, rows, columns in matrices:
        shape = (rows, columns)
        weight = Target(f"{target}{new}.weight", shape, shape)
        yield f"{source}{old}.weight", weight
        if block.bias:
            yield _same(f"{source}{old}.bias", f"{target}{new}.bias", rows)
    norms = [("attention.norm", c), ("mlp.norm", c)]
    if block.post_norm:
        norms += [("attention.post_norm", c), ("mlp.post_norm", c)]
    if block.qk_norm:
        norms += [("attention.query_norm", block.head_dim), ("attention.key_norm", block.head_dim)]
    for name, size in norms:
        yield _same(f"{source}{name}.weight", f"{target}{name}.weight", size)
        if block.norm == "layer_norm" and name.endswith(".norm"):
            yield _same(f"{source}{name}.bias", f"{target}{name}.bias", size)


def account(
    tensors: dict[str, SourceTensor], layout: dict[str, Target], dropped: Set[str], where: str
) -> None:
    """Raise a WeightsError for a tensor that is missing, unexpected, of the wrong shape or not of a
    floating-point dtype."""
    missing = [name for name in layout if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise WeightsError(
            f"{where}: the tensor {missing[0]!r}{more} is missing; the model needs it in shape "
            f"{layout[missing[0]].source_shape}. Is the file complete, and does the configuration "
            "belong to it?"
        )
    extra = [name for name in tensors if name not in layout and name not in dropped]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise WeightsError(
            f"{where}: the tensor {extra[0]!r}{more} does not belong to this model. "
            "Does the configuration belong to this checkpoint?"
        )
    for name, target in layout.items():
        tensor = tensors[name]
        if tensor.shape != target.source_shape:
            raise WeightsError(
                f"{where}: {name!r} has shape {tensor.shape}; the model needs "
                f"{target.source_shape}."
            )
        if tensor.dtype not in FLOATS:
            raise WeightsError(
                f"{where}: {name!r} is of type {tensor.dtype}; expected a floating-point type."
            )
