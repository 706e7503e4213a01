"""The types in which 16-bit and quantized weights compute, counted in the graph."""

from collections import Counter, defaultdict
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import pytest
from counting import casts, primitives
from families import FAMILIES, GATED, example, random_flow, set_half
from mlx.utils import tree_flatten

from mlx_starflow import invert, log_prob
from mlx_starflow.benchmark import RandomShape, random_context
from mlx_starflow.benchmark import random_flow as shaped_flow
from mlx_starflow.bundle.quantize import quantize_module
from mlx_starflow.exact.denoise import score
from mlx_starflow.flow import layers as layers_module
from mlx_starflow.flow import step as step_module
from mlx_starflow.flow.grid import grid_of, patchify
from mlx_starflow.sampling import sliding

SHAPE = RandomShape(width=128, layers=(1, 3), grid=4, text_length=8, text_channels=64)
# dtype, quantize -> type of products and of keys and values, here on a CPU
KINDS = {
    "float32": ("float32", None, mx.float32, mx.float32),
    "float16": ("float16", None, mx.float16, mx.float16),
    "bfloat16": ("bfloat16", None, mx.bfloat16, mx.bfloat16),
    "8-bit": ("float16", 8, mx.float16, mx.float16),
    "4-bit": ("bfloat16", 4, mx.bfloat16, mx.bfloat16),
    "mixed": ("float16", "mixed", mx.float16, mx.float16),
    "4-bit of float32": ("float32", 4, mx.float32, mx.float16),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def step(flow, compiled: bool):
    """A step of one token with its arguments, for a batch of two rows of text."""
    grid, block = flow.training_grid(), flow.blocks[-1]
    state = block.begin(grid, random_context(SHAPE, 1, guided=True))
    previous = mx.zeros((2, 1, flow.config.token_channels))
    block.conditionals(state, previous, 0, grid)
    mx.eval(state.arrays())
    if not compiled:
        return state, lambda p: block.conditionals(state, p, 3, grid), (previous,)
    arrays, layers = block.step_arrays(state), block.step_layers()
    prefix, visible = state.prefix, state.caches[0].capacity

    def fixed(p, t, arrays, caches):
        return block.fixed_step(layers, p, t, arrays, caches, prefix, visible)

    caches = [(c.keys, c.values) for c in state.caches]
    return state, fixed, (previous, mx.array(3), arrays, caches)


@every_kind
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_converts_no_weights_and_multiplies_in_their_type(kind, compiled):
    dtype, quantize, products, kept = KINDS[kind]
    flow = shaped_flow(SHAPE, dtype, quantize)
    state, run, arguments = step(flow, compiled)
    found = primitives(run, *arguments)
    smallest = SHAPE.width * SHAPE.width  # numbers of the smallest matrix of a layer
    assert not casts(found, smallest)
    layers = len(flow.blocks[-1].layers)
    matrices = [e for e in found if e["name"] in ("Matmul", "AddMM", "QuantizedMatmul")]
    in_layers = [e for e in matrices if e["inputs"][1][1][0] != flow.config.token_channels]
    types = [e["inputs"][0][2] for e in in_layers]
    assert types.count(products) >= 4 * layers  # qkv, proj, up and down of every layer
    if products != mx.float32:
        wide = [e for e in in_layers if e["inputs"][0][2] == mx.float32]
        ends = 2  # proj_in and proj_out, which are float32 by design
        # On a CPU attention is made of products too; its scores are in the type of the keys.
        assert len(wide) <= ends
    assert {a.dtype for a in state.arrays()} == {kept}


@every_kind
def test_the_cache_is_half_as_large(kind):
    dtype, quantize, _, kept = KINDS[kind]
    state, *_ = step(shaped_flow(SHAPE, dtype, quantize), False)
    size = sum(a.nbytes for a in state.arrays())
    numbers = 2 * 3 * 2 * SHAPE.width * (SHAPE.text_length + SHAPE.grid**2)
    assert size == numbers * kept.size


@every_kind
def test_the_residual_stream_is_float32(kind):
    dtype, quantize, *_ = KINDS[kind]
    flow = shaped_flow(SHAPE, dtype, quantize)
    layer = flow.blocks[-1].layers[0]
    out = layer(mx.zeros((1, 2, SHAPE.width)), None, "causal")
    assert out.dtype == layer.mlp(out).dtype == layer.attention(out, None, None).dtype == mx.float32


def plain_flow(dtype: str, quantize):
    return shaped_flow(SHAPE, dtype, quantize)


def gated_flow(dtype: str, quantize):
    """A flow of the same size whose layers are gated, have RMSNorms and no biases."""
    config = SHAPE.config()
    config = replace(config, blocks=tuple(replace(b, **GATED) for b in config.blocks))
    flow = random_flow(config)
    set_half(flow, getattr(mx, dtype))
    if quantize is not None:
        quantize_module(flow, config.to_dict(), quantize)
    return flow


@pytest.fixture
def seen(monkeypatch) -> dict[str, list]:
    """The types of what norms and activation functions are given."""
    types: dict[str, list] = defaultdict(list)

    def watch(home, name: str, what: str, place: int) -> None:
        function = getattr(home, name)

        def watched(*arguments, **options):
            types[what].append(arguments[place].dtype)
            return function(*arguments, **options)

        monkeypatch.setattr(home, name, watched)

    for module in (layers_module, step_module):
        watch(module, "gelu", "activation", 0)
        watch(module, "gelu_tanh", "activation", 0)
    for norm in (layers_module.LayerNorm, layers_module.RMSNorm):
        watch(norm, "__call__", "norm", 1)
    watch(mx.fast, "layer_norm", "kernel of a norm", 0)
    watch(mx.fast, "rms_norm", "kernel of a norm", 0)
    return types


@pytest.mark.parametrize("make", [plain_flow, gated_flow])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("float32", "mixed")])
def test_norms_activations_and_the_affine_map_are_float32(seen, kind, compiled, make):
    dtype, quantize, *_ = KINDS[kind]
    flow = make(dtype, quantize)
    _, run, arguments = step(flow, compiled)
    seen.clear()
    a, b = run(*arguments)[:2]
    assert (a.dtype, b.dtype) == (mx.float32, mx.float32)
    assert {what: set(types) for what, types in seen.items()} == dict.fromkeys(
        ("activation", "norm", "kernel of a norm"), {mx.float32}
    )
    layers = len(flow.blocks[-1].layers)
    assert len(seen["activation"]) == layers
    assert len(seen["norm"]) > 2 * layers  # two of each layer, and the final one


def test_a_whole_pass_unpacks_every_quantized_matrix_once():
    flow = shaped_flow(SHAPE, "float16", 4)
    block, grid = flow.blocks[-1], flow.training_grid()
    context = random_context(SHAPE, 2, guided=True)  # 4 rows of 24 places: many enough
    u = mx.zeros((4, grid.tokens, flow.config.token_channels))
    found = primitives(lambda u: block.parameters_of(u, grid, context), u)
    names = [e["name"] for e in found]
    assert "QuantizedMatmul" not in names
    matrices = 4 * len(block.layers)
    packed = [e for e in found if e["name"] == "Concatenate" and e["outputs"][0][2] == mx.uint32]
    assert len(packed) == matrices  # on a CPU this is how a matrix is unpacked


@pytest.fixture
def unpacked(monkeypatch) -> Counter:
    """How often each quantized matrix has been unpacked, by its identity."""
    counts, dequantize = Counter(), mx.dequantize

    def counting(weight, *arguments, **options):
        counts[id(weight)] += 1
        return dequantize(weight, *arguments, **options)

    monkeypatch.setattr(mx, "dequantize", counting)
    return counts


MANY_ROWS = replace(
    SHAPE, grid=6
)  # 36 tokens: enough rows in every block for its matrices to be unpacked


def matrices(flow) -> set[int]:
    """The identities of all quantized matrices."""
    leaves = tree_flatten(flow.leaf_modules(), is_leaf=nn.Module.is_module)
    return {id(leaf.weight) for _, leaf in leaves if "scales" in leaf}


def test_the_certificate_unpacks_every_quantized_matrix_once(monkeypatch, unpacked):
    flow = shaped_flow(MANY_ROWS, "float32", 4)
    certify, during = sliding._Walk.certify, Counter()

    def watched(self, tolerance):
        unpacked.clear()
        found = certify(self, tolerance)
        during.update(unpacked)
        return found

    monkeypatch.setattr(sliding._Walk, "certify", watched)
    z = mx.random.normal((1, 6, 6, 4), key=mx.random.key(3))
    context = random_context(MANY_ROWS, 1, guided=True)
    invert(flow, z, context, guidance=1.5, sampler="sliding", block_size=8)
    assert during == dict.fromkeys(matrices(flow), 1)


@pytest.mark.parametrize(("by_layers", "times"), [(True, 2), (False, 1)])
def test_the_score_unpacks_every_quantized_matrix_once_a_pass(unpacked, by_layers, times):
    """By layers there are two passes: forward, and again when its gradient is computed."""
    flow = shaped_flow(MANY_ROWS, "float32", 4)
    x = mx.random.normal((1, 6, 6, 4), key=mx.random.key(3))
    mx.eval(score(flow, x, random_context(MANY_ROWS, 1, guided=False), checkpoint=by_layers))
    assert unpacked == dict.fromkeys(matrices(flow), times)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_likelihood_changes_no_more_than_by_the_rounding_of_the_weights(family, dtype):
    """Pictures of a few random numbers; the reference checkpoints are held to 2e-3 nats per
    dimension in test_reference.py."""
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config, batch=8)
    exact = log_prob(flow, x, context)
    set_half(flow, dtype)
    change = mx.abs(log_prob(flow, x, context) - exact).mean().item() / x[0].size
    set_half(flow, mx.float32)
    weights_alone = mx.abs(log_prob(flow, x, context) - exact).mean().item() / x[0].size
    assert 0 < change < max(2e-3, 4 * weights_alone), (change, weights_alone)


def test_cached_and_whole_passes_round_the_keys_alike():
    flow = random_flow(FAMILIES["released"])
    set_half(flow, mx.float16)
    x, context = example(flow.config)
    grid, u = grid_of(x, flow.config), patchify(x, flow.config)
    block = flow.blocks[-1]
    whole = block.parameters_of(u, grid, context)
    previous = mx.concatenate([mx.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
    part = block.conditionals(block.begin(grid, context), previous, 0, grid)
    assert mx.abs(part[1] - whole[1]).max().item() < 5e-3
