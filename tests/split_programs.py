"""Programs that every rank of a test runs: models divided among ranks against whole ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from families import FAMILIES, random_flow
from mlx.utils import tree_flatten

from mlx_starflow.config import FlowConfig
from mlx_starflow.device.shared import Share, cut_of
from mlx_starflow.errors import UsageError
from mlx_starflow.exact.denoise import denoise
from mlx_starflow.flow import Flow
from mlx_starflow.flow.split import Split
from mlx_starflow.sampling import invert

HEADS = 12  # divides among 2, 3 and 4 ranks


def divisible(config: FlowConfig, kv_heads: int = HEADS) -> FlowConfig:
    """A family with so many heads that ranks can share them."""

    def wider(block):
        if block is None or not block.layers:
            return block
        return dataclasses.replace(block, heads=HEADS, kv_heads=kv_heads, mlp_channels=96)

    return dataclasses.replace(
        config, blocks=tuple(map(wider, config.blocks)), denoiser=wider(config.denoiser)
    )


def inputs(config: FlowConfig, rows: int = 2):
    """Noise, and the context for guidance, of a family."""
    key = mx.random.key(5)
    side = config.grid_size * config.patch_size
    frames = (3,) if config.frames > 1 else ()
    z = mx.random.normal((rows, *frames, side, side, config.in_channels), key=key)
    if config.text_channels:
        context = mx.random.normal((2 * rows, config.text_length, config.text_channels), key=key)
        return z, context, context[:rows]
    if config.num_classes:
        labels = mx.arange(rows) % config.num_classes
        return z, labels, labels
    return z, None, None


def everything(flow: Flow, guided: bool = True) -> dict[str, np.ndarray]:
    """Sample, latents, log-determinant, denoised sample."""
    config = flow.config
    z, context, own = inputs(config)
    guided = guided and context is not None
    made = {}
    for sampler in ("sequential", "sliding", "jacobi"):
        x = invert(
            flow, z, context if guided else own, sampler=sampler,
            guidance=1.5 if guided else 0.0,
            **({"tolerance": 1e-7} if sampler != "sequential" else {}),
        )  # fmt: skip
        made[sampler] = x
    latents, logdet = flow(made["sequential"], own)
    made |= {"latents": latents, "logdet": logdet}
    if config.noise_std:
        made["denoised"] = denoise(flow, made["sequential"], own, None, "score")
        if config.denoiser is not None:
            made["learned"] = denoise(flow, made["sequential"], own, None, "learned")
    return {name: np.array(value) for name, value in made.items()}


def loss(flow: Flow, x, own):
    z, logdet = flow(x, own)
    return 0.5 * mx.square(z).sum() - logdet.sum()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))


def digest(found: dict[str, np.ndarray]) -> str:
    """The same on all ranks if they have computed the same numbers."""
    return hashlib.sha256(b"".join(found[k].tobytes() for k in sorted(found))).hexdigest()[:8]


def tensor(group) -> dict:
    """Tensor parallel against one process, by family and number of heads of keys and values."""
    share, worst = Share.of(group), {}
    for name in sys.argv[2:] or FAMILIES:
        config = FAMILIES[name]
        for kv in {HEADS, 2 if group.size() != 3 else 1}:
            if kv != HEADS and "grouped" not in name:
                continue
            whole, parts = random_flow(divisible(config, kv)), random_flow(divisible(config, kv))
            parts.shard(group)
            found, wanted = everything(parts), everything(whole)
            case = f"{name} kv {kv}"
            worst[case] = {k: difference(wanted[k], found[k]) for k in wanted}
            worst[case]["digest"] = digest(found)
            if kv != HEADS:
                continue  # a head that several ranks have gets a part of its gradient on each
            z, _, own = inputs(config)
            gradient = nn.value_and_grad(parts, lambda x, o, f=parts: loss(f, x, o))
            wanted_gradient = nn.value_and_grad(whole, lambda x, o, f=whole: loss(f, x, o))
            mine = dict(tree_flatten(gradient(z, own)[1]))
            theirs = dict(tree_flatten(wanted_gradient(z, own)[1]))
            layers = dict(parts.named_modules())
            errors = [0.0]
            for path, value in mine.items():
                layer, _, leaf = path.rpartition(".")
                cut, right = cut_of(layers[layer]) if layer in layers else None, theirs[path]
                right = right if cut is None else cut.taken(leaf, right, path)
                errors.append(difference(np.array(right), np.array(value)))
            worst[case]["gradient"] = max(errors)
    assert share.size == group.size()
    return worst


def guidance(group) -> dict:
    """Captions and null captions apart, against one process."""
    worst = {}
    for name in sys.argv[2:] or FAMILIES:
        config = FAMILIES[name]
        flow = random_flow(config)
        wanted = everything(flow)
        split = Split("guidance", group)
        split.settle(flow)
        found = everything(flow)
        worst[name] = {k: difference(wanted[k], found[k]) for k in wanted}
        worst[name] |= {"messages": split.messages, "digest": digest(found)}
    return worst


def refused(group) -> dict:
    """What does not divide is refused by name, and the flow stays whole."""
    flow = random_flow(FAMILIES["released"])
    before = dict(tree_flatten(flow.parameters()))
    try:
        flow.shard(group)
    except UsageError as error:
        after = dict(tree_flatten(flow.parameters()))
        same = all(mx.array_equal(after[k], v) for k, v in before.items())
        return {"message": str(error), "same": same}
    return {}


PROGRAMS = {"tensor": tensor, "guidance": guidance, "refused": refused}

if __name__ == "__main__":
    ours = mx.distributed.init(strict=True, backend="ring")
    result = PROGRAMS[sys.argv[1]](ours)
    sys.stdout.write(json.dumps(result) + "\n")
