"""Keys and values in 16, 8 and 4 bits: how much memory they take and what they cost."""

import dataclasses

import mlx.core as mx
import pytest
from families import FAMILIES, example_clip, random_flow

from mlx_starflow import SampleOptions, invert, invert_steps
from mlx_starflow.errors import UsageError
from mlx_starflow.flow.cache import KVCache, PackedCache
from mlx_starflow.generation.memory_need import KEPT_IN

DEEP = dict(head_dim=32, heads=2, kv_heads=2)


@pytest.fixture(scope="module")
def small():
    """The clips family with heads that groups of 32 divide."""
    plain = FAMILIES["clips"]
    blocks = tuple(dataclasses.replace(b, **DEEP) for b in plain.blocks)
    config = dataclasses.replace(plain, blocks=blocks)
    return random_flow(config), *example_clip(config, guided=True)


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_are_written_and_rewritten(bits):
    cache, exact = PackedCache(20, bits), KVCache(20)
    rows = mx.random.normal((2, 3, 20, 64), key=mx.random.key(0))
    for start, stop in ((0, 7), (7, 12), (9, 10), (10, 20)):
        part = rows[:, :, start:stop]
        found, expected = cache.update(part, -part, start), exact.update(part, -part, start)
        for a, b in zip(found, expected, strict=True):
            b = b[:, :, :stop]  # rows behind the end are ignored
            assert a.shape == b.shape and a.dtype == mx.float16
            assert mx.abs(a - b).max().item() < 8 / 2**bits
    kept = sum(a.nbytes for a in cache.arrays())
    assert kept == 2 * rows.size * KEPT_IN[bits]


@pytest.mark.parametrize(
    "sampler", ["sequential", "sliding", pytest.param("jacobi", marks=pytest.mark.slow)]
)
def test_the_residual_tells_what_bits_cost(small, sampler):
    flow, z, context = small
    exact = invert(flow, z, context, guidance=2.0, sampler="sequential")
    errors, residuals = [], []
    for bits in (None, 16, 8, 4):
        options = SampleOptions(guidance=2.0, sampler=sampler, kv_bits=bits,
                                **({"tolerance": 1e-11, "max_sweeps": 99}
                                   if sampler == "jacobi" else {}))  # fmt: skip
        first, *_ = (e for e in invert_steps(flow, z, context, options) if hasattr(e, "x"))
        if bits is not None:  # float32 otherwise, so fewer bits miss the tolerance
            assert first.report.accuracy == "above" and not first.report.converged
        residuals.append(first.report.residual)
        x = invert(flow, z, context, **dataclasses.asdict(options))
        errors.append(mx.abs(x - exact).max().item())
    assert residuals[0] < 1e-4 and errors[0] < 1e-3
    assert residuals[0] < residuals[1] < residuals[2] < residuals[3]
    assert errors[1] < errors[3]


def test_what_cannot_be_packed_is_refused():
    config = FAMILIES["clips"]  # heads of 24
    flow, (z, context) = random_flow(config), example_clip(config)
    with pytest.raises(UsageError, match="multiple of 32"):
        invert(flow, z, context, kv_bits=8)
    with pytest.raises(UsageError, match="kv_bits is 3"):
        invert(flow, z, context, kv_bits=3)
