"""A tiny random flow of every family: each invariant is tested over all of them."""

from __future__ import annotations

import os

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_starflow.bundle.quantize import takes_type
from mlx_starflow.config import BlockConfig, FlowConfig
from mlx_starflow.device.activations import on_gpu
from mlx_starflow.flow import Flow

# How much more two ways of computing the same may differ than on a CPU, whose float32 products are
# off by 1e-7: those of GPUs by up to 1e-6, which MLX_STARFLOW_TEST_NOISE imitates.
_OTHERS = on_gpu() or float(os.environ.get("MLX_STARFLOW_TEST_NOISE", 0)) > 0
ROUNDING = 10.0 if _OTHERS else 1.0


def _block(**changes) -> BlockConfig:
    plain = dict(
        layers=1, channels=24, heads=1, kv_heads=1, head_dim=24, mlp_channels=48, final_norm=True
    )
    return BlockConfig(**(plain | changes))


def _starflow(*blocks: BlockConfig, **changes) -> FlowConfig:
    plain = dict(
        model_type="starflow",
        in_channels=2,
        patch_size=1,
        grid_size=3,
        blocks=blocks,
        noise_std=0.3,
        text_channels=10,
        text_length=4,
        sos=True,
        scale="softplus",
        soft_clip=4.0,
    )
    return FlowConfig(**(plain | changes))


def _tarflow(**changes) -> FlowConfig:
    block = dict(final_norm=False, position="table", conditioned=changes.get("num_classes", 0) > 0)
    plain = dict(
        model_type="tarflow",
        in_channels=3,
        patch_size=2,
        grid_size=3,
        blocks=(_block(**block), _block(**block, flip=True, layers=2)),
        noise_std=0.05,
    )
    return FlowConfig(**(plain | changes))


DEEP = _block(flip=False, conditioned=True, layers=2)
GATED = dict(norm="rms_norm", gated_mlp=True, bias=False, qk_norm=True, post_norm=True)

FAMILIES: dict[str, FlowConfig] = {
    "released": _starflow(_block(flip=True), _block(), DEEP),
    "text_everywhere": _starflow(
        _block(conditioned=True),
        _block(layers=0),
        _block(conditioned=True, flip=True),
        scale="exp",
        soft_clip=0.0,
        patch_size=2,
        grid_size=2,
    ),
    "grouped_gated": _starflow(
        _block(heads=4, kv_heads=2, **GATED),
        _block(heads=4, kv_heads=2, flip=True, conditioned=True, **GATED),
    ),
    "gemma_shaped": _starflow(
        _block(flip=True),
        _block(
            channels=10,
            heads=2,
            kv_heads=1,
            head_dim=8,
            conditioned=True,
            project_text=False,
            position="sequence",
            **GATED,
        ),
    ),
    "no_sos": _starflow(_block(flip=True), DEEP, sos=False, scale="exp", soft_clip=0.0),
    "no_text": _starflow(_block(flip=True), _block(), text_channels=0, text_length=0),
    "learned_table": _starflow(_block(position="table"), _block(position="table", flip=True)),
    "learned_denoiser": _starflow(
        _block(flip=True), DEEP, denoiser=_block(layers=2, conditioned=True)
    ),
    "clips": _starflow(
        _block(flip=True, local=True),
        _block(local=True),
        _block(channels=48, heads=2, mlp_channels=96, conditioned=True, layers=2, flip=True),
        denoiser=_block(layers=2, conditioned=True),
        rotary_size=5,
        frames=3,
        temporal_causal=2,
        denoiser_window=1,
    ),
    "clips_global": _starflow(
        _block(flip=True),
        _block(layers=0),
        DEEP,
        denoiser=_block(),
        scale="exp",
        soft_clip=0.0,
        patch_size=2,
        grid_size=2,
        frames=3,
        temporal_causal=1,
    ),
    "tarflow_classes": _tarflow(num_classes=3),
    "tarflow_plain": _tarflow(),
    "tarflow_volume": _tarflow(scale="unit", in_channels=1, patch_size=3),
}


CLIPS = [name for name, config in FAMILIES.items() if config.frames > 1]


def random_flow(config: FlowConfig, seed: int = 0) -> Flow:
    """A random flow with large weights, so that every part of it affects the result."""
    flow = Flow(config)
    flat = tree_flatten(flow.parameters())
    keys = mx.random.split(mx.random.key(seed), len(flat))
    drawn = []
    for (name, value), key in zip(flat, keys, strict=True):
        if name == "prior_var":
            continue
        std = 0.5 / value.shape[-1] ** 0.5 if value.ndim > 1 else 0.2
        noise = std * mx.random.normal(value.shape, key=key)
        keep = value if name.endswith("norm.weight") else 0.0  # else mlx drew it at random
        drawn.append((name, keep + noise))
    flow.update(tree_unflatten(drawn))
    mx.eval(flow.parameters())
    return flow


def example(config: FlowConfig, batch: int = 2, seed: int = 1, guided: bool = False):
    """Noise (B, H, W, C) and a context of a model; with ``guided`` the null rows follow."""
    side = config.grid_size * config.patch_size
    k1, k2 = mx.random.split(mx.random.key(seed))
    z = mx.random.normal((batch, side, side, config.in_channels), key=k1)
    if config.text_channels:
        rows = 2 * batch if guided else batch
        return z, mx.random.normal((rows, config.text_length, config.text_channels), key=k2)
    if config.num_classes:
        return z, mx.arange(batch) % (config.num_classes + 1) - 1
    return z, None


def example_clip(config: FlowConfig, frames: int = 3, batch: int = 2, guided: bool = False):
    """Noise (B, N, H, W, C) of frames that are wider than high, and a context."""
    z, context = example(config, batch, guided=guided)
    height = config.grid_size * config.patch_size
    shape = (batch, frames, height, height + config.patch_size, config.in_channels)
    return mx.random.normal(shape, key=mx.random.key(5)), context


def set_half(flow: Flow, dtype: mx.Dtype) -> None:
    """Convert the layers' matrices and proj_txt to a type, as loading weights does."""
    for path, leaf in tree_flatten(flow.leaf_modules(), is_leaf=nn.Module.is_module):
        if "weight" in leaf and takes_type("flow", f"{path}.weight"):
            leaf.weight = leaf.weight.astype(dtype)


def sensitivity(run, z: mx.array, result: mx.array | None = None) -> float:
    """How much run(z) changes for a change of its input, largest over largest: what one rounding
    on the way may become in the result. ``result``: run(z), where it is known."""
    step = 1e-3 * mx.random.normal(z.shape, key=mx.random.key(77))
    result = run(z) if result is None else result
    moved = mx.abs(run(z + step) - result).max() / mx.abs(step).max()
    return max(1.0, moved.item())
