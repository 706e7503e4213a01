"""Programs that every rank of a test runs: models divided among ranks against whole ones. The
arguments are the name of a program and its own arguments; a comma separates several programs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from families import FAMILIES, random_flow
from mlx.utils import tree_flatten
from split_adapters import difference, inputs, with_adapters

import mlx_starflow as sf
from mlx_starflow.adapters.files import AdapterConfig, Base
from mlx_starflow.bundle.load import load_component, read_component_config
from mlx_starflow.bundle.quantize import quantize_module
from mlx_starflow.cli import app as cli
from mlx_starflow.config import FlowConfig
from mlx_starflow.device.shared import Share, cut_of
from mlx_starflow.device.typed import layers_of
from mlx_starflow.errors import UsageError
from mlx_starflow.exact.denoise import denoise
from mlx_starflow.flow import Flow, block, layers, step
from mlx_starflow.flow.shards import flow_cuts, mark_flow
from mlx_starflow.flow.split import Split
from mlx_starflow.generation import draw
from mlx_starflow.ranks import sharded_load
from mlx_starflow.ranks.costs import guidance_cost, tensor_cost, training_cost
from mlx_starflow.sampling import SampleOptions, invert
from mlx_starflow.sampling.conditional import Conditional
from mlx_starflow.text.t5 import T5Config, T5Encoder, shard_t5
from mlx_starflow.training.gradient import gradient
from mlx_starflow.training.parameters import Trained

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


SAMPLERS = ("sequential", "sliding", "jacobi")


def everything(flow: Flow, samplers: tuple[str, ...] = SAMPLERS) -> dict[str, np.ndarray]:
    """Samples, latents, log-determinant, denoised sample."""
    config = flow.config
    z, context, own = inputs(config)
    guided = context is not None
    made = {}
    for sampler in samplers:
        x = invert(
            flow, z, context if guided else own, sampler=sampler,
            guidance=1.5 if guided else 0.0,
            **({"tolerance": 1e-7} if sampler != "sequential" else {}),
        )  # fmt: skip
        made[sampler] = x
    x = made[samplers[0]]
    latents, logdet = flow(x, own)
    made |= {"latents": latents, "logdet": logdet}
    if config.noise_std:
        made["denoised"] = denoise(flow, x, own, None, "score")
        if config.denoiser is not None:
            made["learned"] = denoise(flow, x, own, None, "learned")
    return {name: np.array(value) for name, value in made.items()}


def loss(flow: Flow, x, own):
    z, logdet = flow(x, own)
    return 0.5 * mx.square(z).sum() - logdet.sum()


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


def adapters(group) -> dict:
    """Adapters on shares, and gradients of trained arrays, against one process, by family."""
    found = {}
    for name in sys.argv[2:] or FAMILIES:
        for kv in {HEADS, *([2] if "grouped" in name and group.size() != 3 else [])}:
            config = divisible(FAMILIES[name], kv)
            whole, parts = random_flow(config), random_flow(config)
            parts.shard(group)
            found[f"{name} kv {kv}"] = with_adapters(whole, parts)
    return found


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


def loaded(group) -> dict:
    """Shares that are read from disk: sys.argv[2] is the directory of a flow."""
    share, found = Share.of(group), {}
    folder = Path(sys.argv[2])

    def build(config):
        return Flow(FlowConfig.from_dict(config))

    for kind in sys.argv[3:]:
        directory, quantize = folder / kind.split("+")[0], None
        if "+" in kind:
            quantize = int(kind.split("+")[1])
        config = FlowConfig.from_dict(read_component_config(directory))
        whole = load_component(directory, build, "float32", quantize)
        before = bytes_read()
        flow = load_component(directory, build, "float32", quantize, flow_cuts(config, share))
        mx.eval(flow.parameters())
        read = bytes_read() - before
        mark_flow(flow, share)
        weights = [sum(v.nbytes for _, v in tree_flatten(f.parameters())) for f in (flow, whole)]
        files = sum(p.stat().st_size for p in directory.glob("*.safetensors"))
        z, context, own = inputs(config, 1)
        options = dict(guidance=1.5, sampler="sliding", tolerance=1e-6)
        ours, theirs = invert(flow, z, context, **options), invert(whole, z, context, **options)
        found[kind] = {
            "weights": weights[0] / weights[1],
            "read": read / files,
            "sample": difference(np.array(theirs), np.array(ours)),
        }
    return found


def quantized(group) -> dict:
    """A quantized flow in shares against a whole one, with keys and values in 16 bits, in which
    quantized models keep them, and in 32."""
    size = dict(channels=64, heads=4, kv_heads=4, head_dim=32, mlp_channels=256)
    blocks = [dataclasses.replace(b, **size) for b in FAMILIES["released"].blocks]
    config = dataclasses.replace(FAMILIES["released"], blocks=tuple(blocks))
    found: dict[str, dict[str, float]] = {}
    for bits in (4, 8):
        flows = []
        for _ in range(2):
            flows.append(random_flow(config))
            quantize_module(flows[-1], config.to_dict(), bits)
        assert any("scales" in layer for _, layer in layers_of(flows[1].blocks[0].layers[0]))
        flows[1].shard(group)
        z, context, own = inputs(config)
        options = dict(guidance=1.5, sampler="sequential")
        for kept in (16, 32):
            with patched(kept):
                samples = [np.array(invert(flow, z, context, **options)) for flow in flows]
                latents = [np.array(flow(z, own)[0]) for flow in flows]
            found[f"{bits} bits, keys in {kept}"] = {
                "sample": difference(*samples), "latents": difference(*latents)
            }  # fmt: skip
    return found


@contextlib.contextmanager
def patched(bits: int):
    """Keys and values in 32 bits inside the ``with`` block, if ``bits`` says so."""
    real = layers.kept_type
    for module in (layers, block, step) if bits == 32 else ():
        module.kept_type = lambda layer: mx.float32
    try:
        yield
    finally:
        for module in (layers, block, step):
            module.kept_type = real


def gentle(flow: Flow) -> Flow:
    """The flow with small scales and means, because the samples of random flows without a limit of
    the scale overflow."""
    for name, layer in flow.named_modules():
        if name.endswith("proj_out"):
            layer.weight = 0.2 * layer.weight
    return flow


def stored_flow(group) -> dict:
    """The flow in the directory sys.argv[2] in shares, with its own weights if it divides, else
    with heads that do and random weights."""

    def build(config):
        return Flow(FlowConfig.from_dict(config))

    whole, parts = (load_component(Path(sys.argv[2]), build, "float32") for _ in range(2))
    own = True
    try:
        parts.shard(group)
    except UsageError:
        own, config = False, divisible(whole.config)
        whole, parts = gentle(random_flow(config)), gentle(random_flow(config))
        parts.shard(group)
    found, wanted = everything(parts, ("sliding",)), everything(whole, ("sliding",))
    return {"own weights": own, "errors": {k: difference(wanted[k], found[k]) for k in wanted}}


def bytes_read() -> int:
    """Bytes that this process has read from files."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def t5(group) -> dict:
    """A T5 in shares against a whole one, gated or not."""
    found = {}
    for gated in (False, True):
        config = T5Config(32, 8, 48, 12, 2, 40, activation="gelu_new", gated=gated)
        whole, parts = T5Encoder(config), T5Encoder(config)
        arrays = [
            (name, 0.3 * mx.random.normal(a.shape, key=mx.random.key(i)))
            for i, (name, a) in enumerate(tree_flatten(whole.parameters()))
        ]
        whole.load_weights(arrays), parts.load_weights(arrays)
        shard_t5(parts, Share.of(group))
        ids = mx.array([[3, 7, 9, 1, 0, 5]])
        found[f"gated {gated}"] = difference(np.array(whole(ids)), np.array(parts(ids)))
    return found


def counted(group) -> dict:
    """Messages and bytes of single passes, counted, beside what ``ranks.costs`` says."""
    sums, gathers = [], []
    real = mx.distributed.all_sum, mx.distributed.all_gather

    def all_sum(x, **more):
        sums.append(x.nbytes)
        return real[0](x, **more)

    def all_gather(x, **more):
        gathers.append(x.nbytes)
        return real[1](x, **more)

    mx.distributed.all_sum, mx.distributed.all_gather = all_sum, all_gather
    config = divisible(FAMILIES["released"])
    block, found = config.blocks[-1], {}
    for kind in ("tensor", "guidance"):
        if kind == "guidance" and group.size() != 2:
            continue
        flow = random_flow(config)
        split = Split(kind, group)
        if kind == "tensor":
            flow.shard(group)
        else:
            split.settle(flow)
        _, context, _ = inputs(config, 3)
        for window in (1, 4):
            conditional = Conditional(
                flow.blocks[-1], flow.training_grid(), context, 3, SampleOptions(guidance=1.0)
            )
            previous = mx.zeros((3, window, config.token_channels))
            sums.clear(), gathers.clear()
            mx.eval(conditional.affine(previous, 2))
            own = [len(sums) + len(gathers), sum(sums) + sum(gathers)]
            if kind == "tensor":
                cost = tensor_cost(block, 6, window)
            else:
                cost = guidance_cost(config, 3, window)
            found[f"{kind} {window}"] = [own, [cost.messages, cost.bytes]]
    flow = random_flow(config)
    flow.shard(group)
    x, _, own = inputs(config, 3)
    trained = Trained(flow, AdapterConfig(Base("", "")))
    sums.clear(), gathers.clear()
    gradient(trained, trained.initial(0), x, own)
    cost = training_cost(config, 3)
    found["training"] = [[len(sums), sum(sums)], [cost.messages, cost.bytes]]
    mx.distributed.all_sum, mx.distributed.all_gather = real
    return found


def pipeline(group) -> dict:
    """``sharded_load`` against ``load`` for the model in the directory sys.argv[2]."""
    options = dict(seed=1, sampler="sequential")
    with sf.load(sys.argv[2]) as whole, sharded_load(sys.argv[2], group) as parts:
        one, other = whole.generate("a fox", **options), parts.generate("a fox", **options)
        shares = [
            sum(a.nbytes for _, a in tree_flatten(pipe.flow.parameters()))
            for pipe in (parts, whole)
        ]
    return {
        "latents": difference(np.array(one.latents), np.array(other.latents)),
        "share": shares[0] / shares[1],
    }


def commands(group) -> dict:
    """Runs the command lines in sys.argv[2], one after another in this process. Returns the number
    of all-sums, in all and while samples are denoised, of each."""
    sums, denoising, found = [], [], []
    real_sum, real_denoise = mx.distributed.all_sum, draw.denoise

    def all_sum(x, **more):
        sums.append(x.nbytes)
        return real_sum(x, **more)

    def counted_denoise(*arguments, **more):
        before = len(sums)
        try:
            return real_denoise(*arguments, **more)
        finally:
            denoising.append(len(sums) - before)

    mx.distributed.all_sum, draw.denoise = all_sum, counted_denoise
    for line in json.loads(sys.argv[2]):
        sums.clear(), denoising.clear()
        status = cli.run(line)
        if status:
            sys.exit(status)
        found.append([len(sums), sum(denoising)])
    return {"sums": found}


MAIN = (commands, tensor, adapters, guidance, refused, loaded, quantized, stored_flow, t5, counted,
        pipeline)  # fmt: skip
PROGRAMS = {p.__name__: p for p in MAIN}

if __name__ == "__main__":
    ours = mx.distributed.init(strict=True, backend="ring")
    results, words = [], sys.argv[1:]
    while words:
        end = words.index(",") if "," in words else len(words)
        sys.argv[1:], words = words[:end], words[end + 1 :]
        results.append(PROGRAMS[sys.argv[1]](ours))
    sys.stdout.write(json.dumps(results if len(results) > 1 else results[0]) + "\n")
