"""The types that components are loaded in on a GPU where nobody names one. Types need no GPU: only
the question whether there is one is answered differently here."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from families import FAMILIES, example, random_flow
from mlx.utils import tree_flatten

from mlx_starflow.bundle import types
from mlx_starflow.bundle.dtypes import dtype_named
from mlx_starflow.bundle.load import load_component, write_component
from mlx_starflow.bundle.quantize import quantization_block, quantize_module, takes_type
from mlx_starflow.bundle.types import LARGEST_HALF, default_type
from mlx_starflow.config import FlowConfig
from mlx_starflow.flow import Flow, layers
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.memory_need import component_bytes
from mlx_starflow.hub.locate import EMBEDDED
from mlx_starflow.text.t5 import T5Config, T5Encoder

T5 = dict(model_type="t5", d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=1, vocab_size=20)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(types, "on_gpu", lambda: True)
    return monkeypatch


@pytest.fixture
def large(gpu):
    """Every flow counts as a large one."""
    gpu.setattr(types, "SMALL", 0)


def wide_flow() -> Flow:
    """Matrices that groups of 64 divide."""
    config = FAMILIES["released"]
    block = dict(channels=64, heads=1, kv_heads=1, head_dim=64, mlp_channels=64)
    return random_flow(replace(config, blocks=tuple(replace(b, **block) for b in config.blocks)))


def stored(folder, flow: Flow, dtype: mx.Dtype = mx.bfloat16, **changed: mx.array):
    """A flow's folder, what takes a type stored in ``dtype``."""
    weights = {
        name: value.astype(dtype) if takes_type("flow", name) else value
        for name, value in tree_flatten(flow.parameters())
    }
    for name, value in changed.items():
        weights[name.replace("__", ".")] = value
    write_component(folder, flow.config.to_dict(), weights)
    return folder


def loaded(folder, **options) -> Flow:
    return load_component(folder, lambda c: Flow(FlowConfig.from_dict(c)), **options)


def types_of(module, kind: str = "flow") -> tuple[set, set]:
    """Types of the floating-point arrays that take a type, and of the others."""
    arrays = [(n, v) for n, v in tree_flatten(module.parameters()) if v.dtype != mx.uint32]
    taking = {v.dtype for n, v in arrays if takes_type(kind, n)}
    return taking, {v.dtype for n, v in arrays if not takes_type(kind, n)}


def test_the_default_by_component_size_and_packing(gpu):
    small, large = types.SMALL, types.SMALL + 1
    assert default_type("flow", small, False) == mx.float32
    assert default_type("flow", large, False) is None
    assert default_type("flow", small, True) is None
    assert default_type("text", small, False) is None and default_type("vae", 1, False) is None
    gpu.setattr(types, "on_gpu", lambda: False)
    assert all(default_type(k, large, q) == mx.float32 for k in ("flow", "text") for q in (0, 1))


def test_a_small_flow_computes_in_float32(gpu, tmp_path):
    assert types_of(loaded(stored(tmp_path / "flow", wide_flow()))) == ({mx.float32}, {mx.float32})


def test_a_large_flow_computes_in_float16_where_its_range_allows(large, tmp_path):
    flow = wide_flow()
    half = loaded(stored(tmp_path / "flow", flow))
    assert types_of(half) == ({mx.float16}, {mx.float32})
    for (name, found), (_, value) in zip(
        tree_flatten(half.parameters()), tree_flatten(flow.parameters()), strict=True
    ):
        expected = value.astype(mx.bfloat16) if takes_type("flow", name) else value
        assert mx.allclose(found.astype(mx.float32), expected.astype(mx.float32), atol=1e-7), name
    assert component_bytes(tmp_path / "flow") == sum(
        v.nbytes for _, v in tree_flatten(half.parameters())
    )


def test_a_flow_beyond_the_range_of_float16_stays_as_it_is(large, tmp_path):
    flow = wide_flow()
    matrix = flow.blocks[0].layers[0].mlp.up.weight.astype(mx.bfloat16) * 1e5
    folder = stored(tmp_path / "flow", flow, blocks__0__layers__0__mlp__up__weight=matrix)
    assert types_of(loaded(folder))[0] == {mx.bfloat16}


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_type_that_is_named_is_the_type(large, tmp_path, name):
    folder = stored(tmp_path / "flow", wide_flow())
    assert types_of(loaded(folder, dtype=name))[0] == {dtype_named(name)}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_scales_of_quantized_matrices_become_float16(gpu, tmp_path, dtype):
    folder = stored(tmp_path / "flow", wide_flow(), dtype)
    for flow in (loaded(folder, quantize=4), stored_quantized(folder, tmp_path / "packed")):
        scales = {v.dtype for n, v in tree_flatten(flow.parameters()) if n.endswith("scales")}
        assert scales == {mx.float16}
        assert types_of(flow)[1] == {mx.float32}


def stored_quantized(folder, packed) -> Flow:
    """The flow of a folder, written in 8 bits and read again."""
    flow = loaded(folder, dtype="bfloat16")
    config = flow.config.to_dict()
    quantize_module(flow, config, 8)
    weights = dict(tree_flatten(flow.parameters()))
    bits = {n.removesuffix(".scales"): 8 for n in weights if n.endswith(".scales")}
    write_component(packed, config | {"quantization": quantization_block(bits)}, weights)
    return loaded(packed)


@pytest.mark.parametrize(("kind", "size", "expected"), [
    ("t5", 1.0, mx.float16), ("t5", 1e6, mx.bfloat16), ("gemma3_text", 1.0, mx.bfloat16),
])  # fmt: skip
def test_text_encoders(gpu, tmp_path, kind, size, expected):
    """T5 is made for float16 where its weights fit; others stay as they are stored."""
    config = T5 | {"model_type": kind}
    weights = tree_flatten(T5Encoder(T5Config.from_dict(T5)).parameters())
    halves = {n: (size * v).astype(mx.bfloat16) for n, v in weights}
    write_component(tmp_path / "text", config, halves)
    encoder = load_component(tmp_path / "text", lambda _: T5Encoder(T5Config.from_dict(T5)))
    assert types_of(encoder, "text")[0] == {expected}


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_the_affine_part_is_float32_however_it_is_stored(large, tmp_path, dtype):
    flow = random_flow(FAMILIES["released"])
    halves = {n: v.astype(mx.float16) for n, v in tree_flatten(flow.parameters())}
    write_component(tmp_path, flow.config.to_dict(), halves)
    assert types_of(loaded(tmp_path, dtype=dtype)) == ({mx.float16}, {mx.float32})


def test_a_vae_computes_in_float32(gpu):
    assert types_of(Components(EMBEDDED["default"], "default").vae, "vae") == (set(), {mx.float32})


@pytest.mark.parametrize("family", FAMILIES)
def test_no_product_is_larger_than_its_bound(family, monkeypatch):
    """What decides about float16 is a bound of what every product takes and gives."""
    flow = random_flow(FAMILIES[family])
    largest, product = [0.0], layers.product

    def watched(layer, x):
        value, bias = product(layer, x)
        for array in (x, value if bias is None else value + bias):
            largest[0] = max(largest[0], mx.abs(array).max().item())
        return value, bias

    monkeypatch.setattr(layers, "product", watched)
    monkeypatch.setattr(layers, "linear", lambda layer, x: watched(layer, x)[0])
    x, context = example(flow.config)
    flow(100.0 * x, context)  # far from anything a flow was trained on
    assert 0 < largest[0] <= flow.largest_product() < LARGEST_HALF
